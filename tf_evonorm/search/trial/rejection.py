"""The tests that reject a candidate: a precheck of one pass, its learning curve, the paper's quality and stability."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.trial.proxy_task import Run, cross_entropy

NOT_FINITE = "not finite while training"
CURVE = "learning curve"
WINDOW = 10  # steps over which a loss is averaged


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result of a test.

    Attributes:
      ok: whether the candidate passed.
      reason: "" or why it was rejected, such as "quality".
      numbers: measured floats by name.
    """

    ok: bool
    reason: str = ""
    numbers: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Quality:
    """Trains for a few steps and measures accuracy. The steps are the first ones of the full training.

    Attributes:
      steps: gradient steps.
      accuracy: accuracy on the held-out images that must be reached.

    Source: EvoNorm paper, section 4: 100 steps, 20 % on CIFAR-10; failing in any anchor rejects the candidate.
    """

    steps: int = 100
    accuracy: float = 0.2

    def __call__(self, run: Run) -> Verdict:
        finite = run.train(self.steps)
        if not finite:
            return Verdict(False, NOT_FINITE, {"steps": run.done})
        accuracy = run.accuracy()
        return Verdict(
            accuracy >= self.accuracy, "" if accuracy >= self.accuracy else "quality", {"accuracy": accuracy}
        )


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """Rejects a candidate whose training loss is above a limit early in the training. The paper does not have it.

    Attributes:
      steps: gradient steps after which the loss is compared, ascending.
      limits: name of an anchor -> one limit for each step; other anchors are not tested. The loss is the mean of the
        last `WINDOW` steps.

    Raises:
      Mistake: steps that do not ascend, or an anchor without one limit for each step.

    Limits belong to one training; `experiments.benchmark curves` calibrates them on the candidates of a search.
    """

    steps: tuple = (20, 40, 80)
    limits: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        steps, limits = tuple(self.steps), {name: tuple(values) for name, values in self.limits.items()}
        if not steps or list(steps) != sorted(set(steps)) or steps[0] < 1:
            raise Mistake(f"steps must be positive and ascend. Received steps={steps}. Pass (20, 40, 80).")
        wrong = [name for name, values in limits.items() if len(values) != len(steps)]
        if wrong:
            raise Mistake(
                f"limits must have one loss for each of the {len(steps)} steps. Received {limits[wrong[0]]} for "
                f"{wrong[0]}. Calibrate them with experiments.benchmark curves."
            )
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "limits", limits)

    def __call__(self, run: Run) -> Verdict:
        for step, limit in zip(self.steps, self.limits.get(run.anchor.name, ())):
            if not run.train(step):
                return Verdict(False, NOT_FINITE, {"steps": run.done})
            loss = smoothed(run.losses[:step])[-1]
            if loss > limit:
                return Verdict(False, CURVE, {"steps": step, "loss": loss})
        return Verdict(True)


def smoothed(losses: Sequence[float]) -> list[float]:
    """Returns the mean loss of every `WINDOW` steps, without the last incomplete window unless it is the only one."""
    windows = [losses[start : start + WINDOW] for start in range(0, len(losses), WINDOW)]
    return [sum(window) / len(window) for window in windows if len(window) == WINDOW or len(windows) == 1]


@dataclasses.dataclass(frozen=True)
class Stability:
    """Maximizes the norm of the loss gradient by gradient ascent; a norm above the limit rejects.

    The ascent starts at the initial weights. The norm is taken over the convolution kernels, on one fixed batch in
    training mode; gamma, beta and v are held constant. Each step moves the kernels along the gradient of the log norm
    by `rate` times their own norm, which makes its length comparable between networks.

    Attributes:
      steps: maximum number of ascent steps.
      limit: largest norm that passes.
      batch: number of images.
      rate: length of a step relative to the norm of all kernels.
      anchors: names of the anchors in which the test is run; empty for all.

    Source: EvoNorm paper, section 4: up to 100 steps, limit 1e8, over the convolution weights. The paper does not
      give the step size, the batch, the starting point or the exact objective.
    """

    steps: int = 100
    limit: float = 1e8
    batch: int = 8
    rate: float = 0.1
    anchors: tuple = ()

    def __call__(self, run: Run) -> Verdict:
        kernels = [kernel for kernel in run.kernels if len(kernel.shape) == 4]
        images, labels = map(tf.constant, run.next_batch(self.batch))

        def ascend() -> tf.Tensor:
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    loss = tf.reduce_mean(cross_entropy(labels, run.model(images, training=True)))
                gradients = inner.gradient(loss, kernels, unconnected_gradients=tf.UnconnectedGradients.ZERO)
                norm = tf.linalg.global_norm(gradients)
                log_norm = tf.math.log(norm)
            directions = outer.gradient(log_norm, kernels, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            length = self.rate * tf.linalg.global_norm(kernels) / tf.maximum(tf.linalg.global_norm(directions), 1e-30)
            with tf.control_dependencies([norm]):
                for kernel, direction in zip(kernels, directions):
                    kernel.assign_add(length * direction)
            return norm

        step, largest = tf.function(ascend, autograph=False).get_concrete_function(), 0.0
        for number in range(self.steps):
            norm = float(step())
            numbers = {"steps": number + 1, "norm": norm}
            if not math.isfinite(norm):
                return Verdict(False, "stability: not finite", numbers)
            largest = max(largest, norm)
            if norm > self.limit:
                return Verdict(False, "stability", numbers)
        return Verdict(True, "", {"steps": self.steps, "norm": largest})


def restored(run: Run, weights: Sequence[np.ndarray], test: Callable[[Run], Verdict]) -> Verdict:
    """Runs a test of `run` from the given weights, then restores its own weights and its position in the images."""
    current, position = run.model.get_weights(), run.position
    run.model.set_weights(weights)
    verdict = test(run)
    run.model.set_weights(current)
    run.position = position
    return verdict


def precheck(run: Run, least: float = 1e-4) -> Verdict:
    """Runs the untrained network once: the loss must be finite, and every logit must vary within the batch.

    Args:
      run: a run that has not been trained.
      least: smallest accepted standard deviation of a logit over the batch.
    """
    loss, spread = run.untrained_spread()
    numbers = {"loss": loss, "spread": spread}
    if not np.isfinite([loss, spread]).all():
        return Verdict(False, "not finite at the first pass", numbers)
    return Verdict(spread >= least, "" if spread >= least else "logits all alike", numbers)
