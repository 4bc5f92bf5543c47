"""Pure maths of the normalizations: moments over batch, instance, layer or group, and each formula with its gradient."""

import tensorflow as tf

OVER = ("batch", "instance", "layer", "group")


def moments(x, over: str = "batch", groups: int = 1, axis: int = -1, synchronized: bool = False):
    """Mean and biased variance of a tensor over one of the four index sets.

    Args:
      x: [B, ..., C] (or [B, C, ...] with axis=1), any floating dtype; rank at least 2.
      over: "batch" (all axes but the channels), "instance" (all places of one sample and channel), "layer" (one whole
        sample) or "group" (all places of one sample and C / groups neighbouring channels).
      groups: number of groups; read only where over="group".
      axis: where the channels are, -1 or 1.
      synchronized: whether a batch is that of all replicas together.

    Returns:
      (mean, variance), float32 (float64 where x is), of x's rank, ready to be broadcast against it.

    Raises:
      ValueError: an unknown index set.

    Source: EvoNorm paper, Table 1: the four index sets; all variances divide by n.
    """
    if over not in OVER:
        raise ValueError(f"over must be one of {OVER}. Received over={over!r}.")
    x = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
    rank = len(x.shape)
    axis %= rank
    if over == "group":
        shape = tf.unstack(tf.shape(x))
        split = shape[:axis] + [groups, x.shape[axis] // groups] + shape[axis + 1 :]
        axes = [i for i in range(1, rank + 1) if i != axis]
        mean, variance = tf.nn.moments(tf.reshape(x, split), axes, keepdims=True)
        ones = [1] * rank
        ones[0], ones[axis] = shape[0], x.shape[axis]
        each = x.shape[axis] // groups
        return tuple(tf.reshape(tf.repeat(value, each, axis + 1), ones) for value in (mean, variance))
    axes = [i for i in range(rank) if not (i == axis and over != "layer") and not (i == 0 and over != "batch")]
    if not synchronized or over != "batch":
        return tf.nn.moments(x, axes, keepdims=True)
    count = tf.cast(tf.size(x) // x.shape[axis], x.dtype)
    count = all_sum(count)
    mean = all_sum(tf.reduce_sum(x, axes, keepdims=True)) / count
    return mean, all_sum(tf.reduce_sum(tf.math.squared_difference(x, mean), axes, keepdims=True)) / count


def all_sum(value):
    """The sum of `value` over the replicas of the strategy in use; differentiable."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def raised(x):
    """x in float32, or as it is in float64."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def fitting_groups(groups, channels: int) -> int:
    """A number of groups that divides the channels.

    Args:
      groups: a number of groups, or "auto": 32, lowered by one until it divides (the authors' rule).
      channels: number of channels.

    Raises:
      ValueError: a number that does not divide the channels.
    """
    if groups == "auto":
        return max(n for n in range(1, min(32, channels) + 1) if channels % n == 0)
    if not isinstance(groups, int) or groups < 1 or channels % groups:
        fitting = ", ".join(str(n) for n in range(1, channels + 1) if channels % n == 0)
        raise ValueError(
            f"groups must divide the channels. Received groups={groups!r}, channels={channels}. "
            f"Pass one of {fitting}, or groups='auto' for the largest up to 32."
        )
    return groups
