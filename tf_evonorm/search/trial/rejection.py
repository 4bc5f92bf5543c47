"""The paper's two tests that a candidate must pass: it learns something in a hundred steps, and its gradients cannot be blown up."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tf_evonorm.search.trial.proxy_task import Run, cross_entropy

NOT_FINITE = "not finite while training"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a test found.

    Attributes:
      ok: whether the candidate goes on.
      reason: "" or what it fell by, such as "quality".
      numbers: what was measured, by name; floats.
    """

    ok: bool
    reason: str = ""
    numbers: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Quality:
    """Trains for a few steps and measures accuracy. The steps count as the first of the training.

    Attributes:
      steps: gradient steps.
      accuracy: share of held-out images that must be right.

    Source: EvoNorm paper, section 4: 100 steps, 20 % on CIFAR-10, failing in any anchor rejects.
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
class Stability:
    """Climbs, from the first weights, to where the gradient of the loss is largest; a norm beyond the limit rejects.

    The norm is that of the gradient in the kernels of convolutions, on one fixed batch in training mode, gamma, beta and v held.
    Each step moves the kernels along the gradient of the norm's logarithm, by `rate` times their own norm, so that it means the same
    in every network.

    Attributes:
      steps: at most so many.
      limit: of the norm.
      batch: images.
      rate: length of a step over the norm of all kernels.
      anchors: names of the anchors it is done in; empty for all.

    Source: EvoNorm paper, section 4: up to 100 steps, limit 1e8, over the convolution weights. Step size, batch, what is ascended
      and where are not said.
    """

    steps: int = 100
    limit: float = 1e8
    batch: int = 8
    rate: float = 0.1
    anchors: tuple = ()

    def __call__(self, run: Run) -> Verdict:
        kernels = [kernel for kernel in run.kernels if len(kernel.shape) == 4]
        images, labels = map(tf.constant, run.next_batch(self.batch))

        def climb():
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    loss = tf.reduce_mean(cross_entropy(labels, run.model(images, training=True)))
                slopes = inner.gradient(loss, kernels, unconnected_gradients=tf.UnconnectedGradients.ZERO)
                norm = tf.linalg.global_norm(slopes)
                height = tf.math.log(norm)
            ups = outer.gradient(height, kernels, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            length = self.rate * tf.linalg.global_norm(kernels) / tf.maximum(tf.linalg.global_norm(ups), 1e-30)
            with tf.control_dependencies([norm]):
                for kernel, up in zip(kernels, ups):
                    kernel.assign_add(length * up)
            return norm

        step, largest = tf.function(climb, autograph=False).get_concrete_function(), 0.0
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
    """Runs a test of `run` from given weights, and gives it back as it was."""
    now, place = run.model.get_weights(), run.place
    run.model.set_weights(weights)
    verdict = test(run)
    run.model.set_weights(now)
    run.place = place
    return verdict


def first_look(run: Run, least: float = 1e-4) -> Verdict:
    """One eager pass of the untrained network: the loss must be finite and some logits differ within a batch."""
    loss, spread = run.first_look()
    numbers = {"loss": loss, "spread": spread}
    if not np.isfinite([loss, spread]).all():
        return Verdict(False, "not finite at the first pass", numbers)
    return Verdict(spread >= least, "" if spread >= least else "logits all alike", numbers)
