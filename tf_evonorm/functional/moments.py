"""Mean and variance over batch, instance, layer or group, without a full-size copy."""

from __future__ import annotations

import numbers

import tensorflow as tf

from tf_evonorm.functional.gradients import with_gradient
from tf_evonorm.functional.reductions import compilable, mean_and_variance, raised
from tf_evonorm.mistakes import Mistake

OVER = ("batch", "instance", "layer", "group")


def moments(
    x: tf.Tensor, over: str = "batch", groups: int = 1, axis: int = -1, synchronized: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance of a tensor over one of the four index sets, without a full-size copy.

    Args:
      x: [B, ..., C] (or [B, C, ...] with axis=1), any floating dtype; rank at least 2.
      over: "batch" (all axes but the channels), "instance" (all positions of one sample and channel), "layer" (one
        whole sample) or "group" (all positions of one sample and C / groups neighbouring channels).
      groups: number of groups; read only where over="group".
      axis: where the channels are, -1 or 1.
      synchronized: whether a batch is that of all replicas together.

    Returns:
      (mean, variance), float32 (float64 where x is), of x's rank, ready to be broadcast against it.

    Raises:
      Mistake: an unknown index set.

    Source: EvoNorm paper, Table 1: the four index sets; all variances divide by n.
    """
    if over not in OVER:
        raise Mistake(f"over must be one of {OVER}. Received over={over!r}. Pass one of them.")
    if over == "batch":
        return batch_moments(x, axis, synchronized)[:2]
    flat, positions = flattened(x, axis)
    mean, variance = _instance_moments(flat, positions)
    if over != "instance":
        mean, variance = over_groups(mean, variance, 1 if over == "layer" else groups, positions)
    return tuple(_as_rank(value, len(x.shape), positions) for value in (mean, variance))


def batch_moments(x: tf.Tensor, axis: int = -1, synchronized: bool = False) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Moments over the batch, and how many values they are of.

    Args:
      x, axis, synchronized: as in `moments`.

    Returns:
      (mean, variance, number of values of each channel, over all replicas if synchronized). Of no value, mean and
      variance are 0.
    """
    flat, positions = flattened(x, axis)
    mean, variance = _instance_moments(flat, positions)
    count = tf.cast(tf.shape(flat)[positions], mean.dtype)
    mean, variance, values = over_batch(mean, variance, count, synchronized)
    return *(_as_rank(value, len(x.shape), positions) for value in (mean, variance)), values


def all_sum(value: tf.Tensor) -> tf.Tensor:
    """The sum of `value` over the replicas of the strategy in use; differentiable."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def fitting_groups(groups: int | str, channels: int) -> int:
    """A number of groups that divides the channels.

    Args:
      groups: a number of groups, or "auto": 32, lowered by one until it divides (the authors' rule).
      channels: number of channels.

    Raises:
      Mistake: a number that does not divide the channels.
    """
    if isinstance(groups, str) and groups == "auto":
        return max(n for n in range(1, min(32, channels) + 1) if channels % n == 0)
    if isinstance(groups, bool) or not isinstance(groups, numbers.Integral) or groups < 1 or channels % groups:
        fitting = ", ".join(str(n) for n in range(1, channels + 1) if channels % n == 0)
        raise Mistake(
            f"groups must divide the channels. Received groups={groups!r}, channels={channels}. "
            f"Pass one of {fitting}, or groups='auto' for the largest up to 32."
        )
    return int(groups)


# Views. A flat tensor is [B, P, C] with positions on axis 1, or [B, C, P] with positions on axis 2; what belongs to a
# sample and channel keeps the axis of the positions with size 1.


def flattened(x: tf.Tensor, axis: int) -> tuple[tf.Tensor, int]:
    """(x as a flat tensor, axis of its positions)."""
    rank = len(x.shape)
    last = axis in (-1, rank - 1)
    between = x.shape[1:-1] if last else x.shape[2:]
    count = between.num_elements()
    if count is None:
        shape = tf.shape(x)
        count = tf.reduce_prod(shape[1:-1] if last else shape[2:])
    batch = x.shape[0] if x.shape[0] is not None else tf.shape(x)[0]
    channels = x.shape[axis]
    return tf.reshape(x, [batch, count, channels] if last else [batch, channels, count]), 1 if last else 2


def _as_rank(value, rank, positions):
    """[B or 1, 1, C] or [B or 1, C, 1] with as many axes as an input of that rank."""
    channels = value.shape[3 - positions]
    ones = [1] * (rank - 2)
    return tf.reshape(value, [-1, *ones, channels] if positions == 1 else [-1, channels, *ones])


# Index sets, from the moments of each sample and channel.


def _instance_moments(x, positions, compiled=None):
    """Mean and variance of each sample and channel of a flat tensor, with their gradient."""

    def measured(x):
        mean, variance = mean_and_variance(compiled, (positions,), x)
        return (mean, variance), lambda *d: [_moments_gradient(compiled, (positions,), x, mean, *d)]

    return with_gradient(measured, x)


@compilable
def _moments_gradient(positions, x, mean, dmean, dvariance):
    count = tf.cast(tf.shape(x)[positions], mean.dtype)
    return tf.cast((dmean + 2 * dvariance * (raised(x) - mean)) / count, x.dtype)


def over_batch(
    mean: tf.Tensor, variance: tf.Tensor, count: tf.Tensor, synchronized: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(mean, variance, number of values) of each channel, from those of each sample and channel over `count` positions.

    A replica without samples adds nothing; where no replica has one, mean and variance are 0.
    """
    total = all_sum if synchronized else tf.identity
    # One message for sum and count.
    sums = tf.reshape(tf.reduce_sum(mean, 0), [-1])
    sums = total(count * tf.concat([sums, [tf.cast(tf.shape(mean)[0], mean.dtype)]], 0))
    values = sums[-1]
    divisor = tf.maximum(values, 1)
    centre = tf.reshape(sums[:-1] / divisor, [1, *mean.shape[1:]])
    spread = variance + tf.math.squared_difference(mean, centre)
    return centre, total(count * tf.reduce_sum(spread, 0, keepdims=True)) / divisor, values


def over_groups(mean: tf.Tensor, variance: tf.Tensor, groups: int, positions: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of each group, repeated for its channels."""
    centre = group_mean(mean, groups, positions)
    return centre, group_mean(variance + tf.math.squared_difference(mean, centre), groups, positions)


def group_mean(value: tf.Tensor, groups: int, positions: int, total: bool = False) -> tf.Tensor:
    """Mean (or total) over the channels of each group, repeated for them."""
    channels = value.shape[3 - positions]
    if groups == channels:
        return value
    split = tf.reshape(value, [-1, groups, channels // groups])
    pooled = tf.reduce_sum(split, 2) if total else tf.reduce_mean(split, 2)
    return tf.reshape(tf.repeat(pooled, channels // groups, axis=1), tf.shape(value))
