"""Moving statistics recomputed before an evaluation, with the weights as they are (PreciseBN)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf


class PreciseNorm:
    """A train action before evaluations that replaces moving statistics by plain means over some batches.

    Args:
      forward: inputs of one replica -> None, runs the model in training mode.
      model: whose normalizations are meant: layers with `momentum` and a variable 'moving_mean' or 'moving_variance'.
      batches: () -> iterator of distributed training batches.
      strategy: where the model lives.
      global_step: variable, the step reached.
      every: steps between two evaluations.
      steps: batches to average over.

    Source: Wu and Johnson 2021 (Rethinking "Batch" in BatchNorm), section 3; 200 batches in PixPro's detection
      protocols. A layer's moving value before and after a batch gives the batch's own: (after - momentum * before) / (1
      - momentum).
    """

    def __init__(
        self,
        forward: Callable[[Any], Any],
        model: tf.keras.Model,
        batches: Callable[[], Iterator],
        strategy: tf.distribute.Strategy,
        global_step: tf.Variable,
        every: int,
        steps: int,
    ):
        self._batches, self._strategy, self._step = batches, strategy, global_step
        self._every, self._steps, self._moving = every, steps, list(moving_statistics(model))
        self._forward = tf.function(lambda inputs: strategy.run(forward, [inputs]))

    def __call__(self, output=None):
        if self._step.numpy() % self._every or not self._moving:
            return
        batches = self._batches()
        sums = [tf.zeros(variable.shape, tf.float64) for variable, _ in self._moving]
        with self._strategy.scope():
            for _ in range(self._steps):
                before = [tf.cast(tf.identity(variable), tf.float64) for variable, _ in self._moving]
                self._forward(next(batches))
                for i, (variable, momentum) in enumerate(self._moving):
                    own = (tf.cast(tf.identity(variable), tf.float64) - momentum * before[i]) / (1 - momentum)
                    sums[i] += own
            for total, (variable, _) in zip(sums, self._moving):
                variable.assign(tf.cast(total / self._steps, variable.dtype))


def moving_statistics(model: tf.keras.Model) -> Iterator[tuple[tf.Variable, float]]:
    """Yields (variable, momentum) of every moving statistic that a forward pass in training moves."""
    for layer in model._flatten_layers():
        momentum = getattr(layer, "momentum", None)
        for variable in vars(layer).get("_non_trainable_weights", []):
            if momentum is not None and layer.trainable and "moving_" in variable.name:
                yield variable, float(momentum)
