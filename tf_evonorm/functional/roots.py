"""Standard deviations and root mean squares of a flat tensor over batch, groups or instances, with their gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from tf_evonorm.functional.moments import all_sum, group_mean, over_batch, over_groups
from tf_evonorm.functional.reductions import mean_and_variance


class Root:
    """sqrt(variance + epsilon), variance the mean of (x - centre)**2 over `count` values, and its gradient in x.

    Attributes:
      value, variance: [B or 1, 1, C] or [B or 1, C, 1], float32 or float64.
      centre: as they are, or None where variance is a mean square.
      count: number of values.
      pool: sums gradients of such tensors over what they were measured over; a second argument is added to the sum.
    """

    def __init__(
        self,
        variance: tf.Tensor,
        epsilon: float,
        centre: tf.Tensor | None = None,
        count: tf.Tensor | None = None,
        pool: Callable = tf.identity,
    ):
        self.variance, self.value = variance, tf.sqrt(variance + epsilon)
        self.centre, self.count, self.pool = centre, count, pool

    def pull(self, gradient: tf.Tensor, *dvariance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """(slope, centre): gradients in root and variance add slope * (x - centre) to dx; no centre is 0."""
        return 2 * self.pool(gradient / (2 * self.value), *dvariance) / tf.maximum(self.count, 1), self.centre

    def pull_centre(self, gradient: tf.Tensor, *dcentre: tf.Tensor) -> tf.Tensor:
        """What gradients in the centre add to dx."""
        return self.pool(gradient, *dcentre) / tf.maximum(self.count, 1)


def group_root(x: tf.Tensor, positions: int, groups: int, centred: bool, epsilon: float, compiled: bool | None) -> Root:
    """The root of each group of channels, repeated for its channels; as many groups as channels are instances."""
    mean, variance = mean_and_variance(compiled, (positions,), x)
    count = tf.cast(tf.shape(x)[positions], mean.dtype) * (mean.shape[3 - positions] // groups)
    pool = functools.partial(group_mean, groups=groups, positions=positions, total=True)
    if not centred:
        return Root(group_mean(variance + tf.square(mean), groups, positions), epsilon, None, count, pool)
    centre, spread = over_groups(mean, variance, groups, positions)
    return Root(spread, epsilon, centre, count, pool)


def batch_root(mean: tf.Tensor, variance: tf.Tensor, count: tf.Tensor, synchronized: bool, epsilon: float) -> Root:
    """The root of each channel, from moments of each sample and channel over `count` positions."""
    centre, spread, values = over_batch(mean, variance, count, synchronized)
    total = all_sum if synchronized else tf.identity

    def pool(gradient, added=0.0):
        return total(tf.reduce_sum(gradient, 0, keepdims=True) + added)

    return Root(spread, epsilon, centre, values, pool)


def along(positions: int) -> list[int]:
    """The shape that broadcasts [C] against a flat tensor."""
    return [1, 1, -1] if positions == 1 else [1, -1, 1]
