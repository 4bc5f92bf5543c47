"""Pure maths of the normalizations: moments over batch, instance, layer or group, and each formula with its gradient.

Every EvoNorm formula is written here twice, forward and backward, element by element: `y = gamma * h(x) / d(x, roots) + beta`,
where the roots are standard deviations or root mean squares, one number per channel or per sample and channel. The backward
pass keeps the input and those numbers, nothing else. Counting a full-size tensor as 1, the forward pass reads 2 and writes
1 (moments, result); the backward pass reads 4 and writes 1 (all sums over places read x and dy once, and so does dx).
"""

from __future__ import annotations

import functools

import tensorflow as tf

from tf_evonorm.functional.reductions import compilable, mean_and_variance, raised, sums_over_places, worth_compiling

OVER = ("batch", "instance", "layer", "group")


def evonorm_b(
    kind: str,
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    v: tf.Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    variance: tf.Tensor | None = None,
    synchronized: bool = False,
    compiled: bool | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """EvoNorm B0, B1 or B2: x / max(batch deviation, f(x, instance statistic)) * gamma + beta.

    | kind | f |
    |---|---|
    | "b0" | v * x + instance standard deviation |
    | "b1" | (x + 1) * instance root mean square |
    | "b2" | instance root mean square - x |

    Args:
      kind: "b0", "b1" or "b2".
      x: [B, ..., C] (or [B, C, ...] with axis=1), any floating dtype, rank at least 2.
      gamma, beta: [C] float32 (float64 where x is).
      v: [C], read by "b0" only.
      axis: where the channels are, -1 or 1.
      epsilon: added to every variance and mean square, inside the root.
      variance: [C], used in place of the batch variance (inference), or None.
      synchronized: take the batch variance over all replicas.
      compiled: whether XLA compiles the element-wise loops; None: where only CPUs are there and x is known
        to be large.

    Returns:
      (y of x's shape and dtype, the biased batch variance [C], or `variance` where given). Gradients of both flow to x.

    Source: EvoNorm paper, Table 2. Epsilon as in the authors' code. The authors never synchronize.
    """
    return _evonorm(kind, x, gamma, beta, v, None, axis, epsilon, variance, synchronized, compiled)


def evonorm_s(
    kind: str,
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    v: tf.Tensor | None = None,
    *,
    groups: int = 1,
    axis: int = -1,
    epsilon: float = 1e-5,
    compiled: bool | None = None,
) -> tf.Tensor:
    """EvoNorm S0, S1 or S2: x * sigmoid(v * x) / group deviation * gamma + beta.

    "s0" learns v; "s1" has v = 1; "s2" has v = 1 and the root mean square in place of the standard deviation.

    Args:
      kind: "s0", "s1" or "s2".
      x: [B, ..., C] (or [B, C, ...] with axis=1), any floating dtype, rank at least 2.
      gamma, beta: [C] float32 (float64 where x is).
      v: [C], read by "s0" only.
      groups: a divisor of C.
      axis: where the channels are, -1 or 1.
      epsilon: added to the variance or mean square, inside the root.
      compiled: whether XLA compiles the element-wise loops; None: where only CPUs are there and x is known
        to be large.

    Returns:
      y of x's shape and dtype.

    Source: EvoNorm paper, Table 3. Epsilon as in the authors' code.
    """
    return _evonorm(kind, x, gamma, beta, v, groups, axis, epsilon, None, False, compiled)[0]


def moments(
    x: tf.Tensor, over: str = "batch", groups: int = 1, axis: int = -1, synchronized: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance of a tensor over one of the four index sets, without a full-size copy.

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
        raise ValueError(f"over must be one of {OVER}. Received over={over!r}. Pass one of them.")
    if over == "batch":
        return batch_moments(x, axis, synchronized)[:2]
    flat, places = _flattened(x, axis)
    mean, variance = _moments(flat, places)
    if over != "instance":
        mean, variance = _over_groups(mean, variance, 1 if over == "layer" else groups, places)
    return tuple(_as_rank(value, len(x.shape), places) for value in (mean, variance))


def batch_moments(x: tf.Tensor, axis: int = -1, synchronized: bool = False) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(mean, variance) as `moments` over the batch, and the number of values of each channel, over all replicas if synchronized."""
    flat, places = _flattened(x, axis)
    mean, variance = _moments(flat, places)
    count = tf.cast(tf.shape(flat)[places], mean.dtype)
    mean, variance, values = _over_batch(mean, variance, count, synchronized)
    return *(_as_rank(value, len(x.shape), places) for value in (mean, variance)), values


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


# Views. A flat tensor is [B, P, C] with places on axis 1, or [B, C, P] with places on axis 2; what belongs to a sample and
# channel keeps the axis of the places with size 1.


def _flattened(x, axis):
    """(x as a flat tensor, axis of its places)."""
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


def _as_rank(value, rank, places):
    """[B or 1, 1, C] or [B or 1, C, 1] with as many axes as an input of that rank."""
    channels = value.shape[3 - places]
    ones = [1] * (rank - 2)
    return tf.reshape(value, [-1, *ones, channels] if places == 1 else [-1, channels, *ones])


def _along(vector, places):
    """[C] as [1, 1, C] or [1, C, 1]."""
    return tf.reshape(vector, [1, 1, -1] if places == 1 else [1, -1, 1])


# Loops over full-size tensors.


@compilable
def _moments_gradient(places, x, mean, dmean, dvariance):
    count = tf.cast(tf.shape(x)[places], mean.dtype)
    return tf.cast((dmean + 2 * dvariance * (raised(x) - mean)) / count, x.dtype)


@compilable
def _result(kind, x, gamma, beta, v, root, floor):
    x, dtype = raised(x), x.dtype
    if kind[0] == "s":
        return tf.cast(x * tf.sigmoid(v * x) * (gamma / root) + beta, dtype)
    return tf.cast(x / tf.maximum(floor, _second(kind, x, v, root)) * gamma + beta, dtype)


@compilable
def _sums(kind, places, x, dy, v, root, floor):
    """Sums over places of dy times the slopes of h / d in gamma, root, floor and v; gamma and the like still to be applied."""

    def slopes(x, g):
        if kind[0] == "s":
            gate = tf.sigmoid(v * x)
            return g, g * x * gate, *([g * x * x * gate * (1 - gate)] if kind == "s0" else [])
        second = _second(kind, x, v, root)
        share = 1 / tf.maximum(floor, second)
        slope = -g * x * share * share
        none = tf.zeros_like(slope)
        in_second, in_floor = tf.where(second >= floor, slope, none), tf.where(second >= floor, none, slope)
        more = {"b0": [in_second * x], "b1": [], "b2": []}[kind]
        return g, g * x * share, in_second * (x + 1) if kind == "b1" else in_second, in_floor, *more

    shift, scale, *rest = sums_over_places(slopes, places, x, dy)
    if kind[0] == "s":
        scale /= root
        return shift, scale, -scale / root, None, rest[0] / root if rest else None
    return shift, scale, *rest, *([None] if kind != "b0" else [])


@compilable
def _input_gradient(kind, x, dy, gamma, v, root, floor, *pulls):
    x, g, dtype = raised(x), raised(dy) * gamma, x.dtype
    if kind[0] == "s":
        dx = g / root * (tf.sigmoid(v * x) + v * x * _bell(v * x))
    else:
        second = _second(kind, x, v, root)
        denominator = tf.maximum(floor, second)
        slope = {"b0": v, "b1": root, "b2": -1.0}[kind]
        dx = g / denominator * tf.where(second >= floor, 1 - x / denominator * slope, 1)
    for slope, centre in zip(pulls[::2], pulls[1::2]):
        dx += slope * (x - centre)
    return tf.cast(dx, dtype)


def _second(kind, x, v, root):
    """The denominator's second branch, which reads the input."""
    return {"b0": lambda: v * x + root, "b1": lambda: (x + 1) * root, "b2": lambda: root - x}[kind]()


def _bell(z):
    s = tf.sigmoid(z)
    return s * (1 - s)


# Statistics of the index sets, from the numbers of each sample and channel; and EvoNorm put together.


def _moments(x, places, compiled=None):
    """Mean and variance of each sample and channel of a flat tensor, with their gradient."""

    @tf.custom_gradient
    def measured(x):
        mean, variance = mean_and_variance(compiled, (places,), x)
        return (mean, variance), lambda *d: _moments_gradient(compiled, (places,), x, mean, *d)

    return measured(x)


def _over_batch(mean, variance, count, synchronized):
    """(mean, variance, number of values) of each channel, from those of each sample and channel over `count` places."""
    total = all_sum if synchronized else tf.identity
    # One message for sum and count.
    sums = tf.reshape(tf.reduce_sum(mean, 0), [-1])
    sums = total(count * tf.concat([sums, [tf.cast(tf.shape(mean)[0], mean.dtype)]], 0))
    values = sums[-1]
    centre = tf.reshape(sums[:-1] / values, [1, *mean.shape[1:]])
    spread = variance + tf.math.squared_difference(mean, centre)
    return centre, total(count * tf.reduce_sum(spread, 0, keepdims=True)) / values, values


def _over_groups(mean, variance, groups, places):
    """Mean and variance of each group, repeated for its channels."""
    centre = _group_mean(mean, groups, places)
    return centre, _group_mean(variance + tf.math.squared_difference(mean, centre), groups, places)


def _group_mean(value, groups, places, total=False):
    """Mean (or total) over the channels of each group, repeated for them."""
    channels = value.shape[3 - places]
    if groups == channels:
        return value
    split = tf.reshape(value, [-1, groups, channels // groups])
    pooled = tf.reduce_sum(split, 2) if total else tf.reduce_mean(split, 2)
    return tf.reshape(tf.repeat(pooled, channels // groups, axis=1), tf.shape(value))


class _Root:
    """sqrt(variance + epsilon), where variance is the mean of (x - centre)**2 over `count` values, and the way back to x."""

    def __init__(self, variance, epsilon, centre=None, count=None, pool=tf.identity):
        self.variance, self.value = variance, tf.sqrt(variance + epsilon)
        self.centre, self.count, self.pool = centre, count, pool

    def pull(self, gradient, *dvariance):
        """(slope, centre): gradients in the root (per sample and channel) and variance add slope * (x - centre) to dx."""
        return 2 * self.pool(gradient / (2 * self.value), *dvariance) / self.count, self.centre


def _roots(kind, x, places, groups, epsilon, synchronized, given, compiled):
    """(the instance or group root, the batch root or None) of one formula."""
    mean, variance = mean_and_variance(compiled, (places,), x)
    count = tf.cast(tf.shape(x)[places], mean.dtype)
    square = variance + tf.square(mean)
    if kind[0] == "s":
        count *= mean.shape[3 - places] // groups
        pool = functools.partial(_group_mean, groups=groups, places=places, total=True)
        if kind == "s2":
            return _Root(_group_mean(square, groups, places), epsilon, 0.0, count, pool), None
        centre, spread = _over_groups(mean, variance, groups, places)
        return _Root(spread, epsilon, centre, count, pool), None
    root = _Root(variance, epsilon, mean, count) if kind == "b0" else _Root(square, epsilon, 0.0, count)
    if given is not None:
        return root, _Root(given, epsilon)
    centre, spread, values = _over_batch(mean, variance, count, synchronized)
    total = all_sum if synchronized else tf.identity
    return root, _Root(
        spread, epsilon, centre, values, lambda t, more: total(tf.reduce_sum(t, 0, keepdims=True) + more)
    )


def _evonorm(kind, x, gamma, beta, v, groups, axis, epsilon, variance, synchronized, compiled):
    flat, places = _flattened(x, axis)
    if compiled is None:
        compiled = worth_compiling(flat)
    along = [1, 1, -1] if places == 1 else [1, -1, 1]
    given = None if variance is None else tf.reshape(variance, along)
    learned = kind in ("b0", "s0")

    @tf.custom_gradient
    def normalized(x, *parameters):
        gamma, beta, *rest = (tf.reshape(p, along) for p in parameters)
        v = rest[0] if learned else tf.ones_like(gamma)
        root, floor = _roots(kind, x, places, groups, epsilon, synchronized, given, compiled)
        low = floor.value if floor else root.value
        y = _result(compiled, (kind,), x, gamma, beta, v, root.value, low)

        def gradient(dy, dvariance):
            shift, scale, droot, dfloor, dv = _sums(compiled, (kind, places), x, dy, v, root.value, low)
            pulls = root.pull(gamma * droot)
            if floor and given is None:
                pulls += floor.pull(gamma * dfloor, tf.reshape(dvariance, along))
            dx = _input_gradient(compiled, (kind,), x, dy, gamma, v, root.value, low, *pulls)
            slopes = [scale, shift] + ([gamma * dv] if learned else [])
            return dx, *(tf.reduce_sum(slope, [0, places]) for slope in slopes)

        return (y, tf.reshape(floor.variance if floor else root.variance[:1], [-1])), gradient

    y, variance = normalized(flat, *(tf.convert_to_tensor(p) for p in ((gamma, beta, v) if learned else (gamma, beta))))
    return tf.reshape(y, tf.shape(x)), variance
