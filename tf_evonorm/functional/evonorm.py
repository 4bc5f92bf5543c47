"""The six EvoNorm formulas, each with its own gradient.

Every formula is written twice, forward and backward, element by element: `y = gamma * h(x) / d(x, root, floor) + beta`,
where root and floor are standard deviations or root mean squares, one number per channel or per sample and channel. The
backward pass keeps the input and those numbers, nothing else. Counting a full-size tensor as 1, the forward pass reads
2 and writes 1 (moments, result); the backward pass reads 4 and writes 1 (all sums over positions read x and dy once,
and so does dx).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tf_evonorm.functional.gradients import with_gradient
from tf_evonorm.functional.moments import flattened
from tf_evonorm.functional.reductions import compilable, compiles, mean_and_variance, raised, sums_over_positions
from tf_evonorm.functional.roots import Root, along, batch_root, group_root


class Vectors(NamedTuple):
    """What a formula learns, [1, 1, C] or [1, C, 1]; v is 1 where it is not learned."""

    gamma: tf.Tensor
    beta: tf.Tensor
    v: tf.Tensor


class Roots(NamedTuple):
    """What a formula measures: the instance or group root [B, 1, C], and the batch root [1, 1, C].

    In the S series both are the group root.
    """

    root: tf.Tensor
    floor: tf.Tensor


class Slopes(NamedTuple):
    """Sums over positions of dy times the slopes of h / d, gamma left out; None where a formula has no such slope."""

    shift: tf.Tensor
    scale: tf.Tensor
    root: tf.Tensor
    floor: tf.Tensor | None
    v: tf.Tensor | None


@dataclasses.dataclass(frozen=True)
class BatchFormula:
    """x / max(floor, second(x, v, root)) * gamma + beta, where floor is the batch root and root the instance root.

    Attributes:
      name: of the formula.
      learned: whether v is a variable.
      centred: whether the instance root is a standard deviation, else a root mean square.
      second: the branch of the denominator that reads the input, a function of (x, v, root).
      slope: its derivative in x, a function of (v, root).
      root_slope: its derivative in the root, a function of x.
    """

    name: str
    learned: bool
    centred: bool
    second: Callable
    slope: Callable
    root_slope: Callable

    def value(self, x: tf.Tensor, vectors: Vectors, roots: Roots) -> tf.Tensor:
        """y, all float32 or float64."""
        denominator = tf.maximum(roots.floor, self.second(x, vectors.v, roots.root))
        return x / denominator * vectors.gamma + vectors.beta

    def sums(self, positions: int, x: tf.Tensor, dy: tf.Tensor, v: tf.Tensor, roots: Roots) -> Slopes:
        """Gradients of the small tensors; x and dy are read once."""

        def slopes(x, g):
            second = self.second(x, v, roots.root)
            share = 1 / tf.maximum(roots.floor, second)
            slope = -g * x * share * share
            none = tf.zeros_like(slope)
            in_second = tf.where(second >= roots.floor, slope, none)
            in_floor = tf.where(second >= roots.floor, none, slope)
            return g, g * x * share, in_second * self.root_slope(x), in_floor, *([in_second * x] * self.learned)

        shift, scale, root, floor, *rest = sums_over_positions(slopes, positions, x, dy)
        return Slopes(shift, scale, root, floor, rest[0] if rest else None)

    def input_gradient(self, x: tf.Tensor, g: tf.Tensor, v: tf.Tensor, roots: Roots) -> tf.Tensor:
        """dx for constant roots; g is dy * gamma."""
        second = self.second(x, v, roots.root)
        denominator = tf.maximum(roots.floor, second)
        slope = self.slope(v, roots.root)
        return g / denominator * tf.where(second >= roots.floor, 1 - x / denominator * slope, 1)


@dataclasses.dataclass(frozen=True)
class SampleFormula:
    """x * sigmoid(v * x) / root * gamma + beta, where root is that of a group of channels.

    Attributes: as in `BatchFormula`; `centred` is of the group root.
    """

    name: str
    learned: bool
    centred: bool

    def value(self, x: tf.Tensor, vectors: Vectors, roots: Roots) -> tf.Tensor:
        """y, all float32 or float64."""
        return x * tf.sigmoid(vectors.v * x) * (vectors.gamma / roots.root) + vectors.beta

    def sums(self, positions: int, x: tf.Tensor, dy: tf.Tensor, v: tf.Tensor, roots: Roots) -> Slopes:
        """Gradients of the small tensors; x and dy are read once."""

        def slopes(x, g):
            gate = tf.sigmoid(v * x)
            return g, g * x * gate, *([g * x * x * gate * (1 - gate)] * self.learned)

        shift, scale, *rest = sums_over_positions(slopes, positions, x, dy)
        scale /= roots.root
        return Slopes(shift, scale, -scale / roots.root, None, rest[0] / roots.root if rest else None)

    def input_gradient(self, x: tf.Tensor, g: tf.Tensor, v: tf.Tensor, roots: Roots) -> tf.Tensor:
        """dx for a constant root; g is dy * gamma."""
        gate = tf.sigmoid(v * x)
        return g / roots.root * (gate + v * x * (gate * (1 - gate)))


BATCH_FORMULAS = {
    "b0": BatchFormula("b0", True, True, lambda x, v, root: v * x + root, lambda v, root: v, lambda x: 1.0),
    "b1": BatchFormula("b1", False, False, lambda x, v, root: (x + 1) * root, lambda v, root: root, lambda x: x + 1),
    "b2": BatchFormula("b2", False, False, lambda x, v, root: root - x, lambda v, root: -1.0, lambda x: 1.0),
}
SAMPLE_FORMULAS = {
    "s0": SampleFormula("s0", True, True),
    "s1": SampleFormula("s1", False, True),
    "s2": SampleFormula("s2", False, False),
}


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
      compiled: whether XLA compiles the element-wise loops; None: where processors or GPUs will run it and x is known
        to be large (in eager calls, once its shape has come back several times).

    Returns:
      (y of x's shape and dtype, the biased batch variance [C], or `variance` where given). Gradients of both flow to x.

    Source: EvoNorm paper, Table 2. Epsilon as in the authors' code. The authors never synchronize.
    """
    measures = _Measures(epsilon, axis=axis, given=variance, synchronized=synchronized)
    return _evonorm(BATCH_FORMULAS[kind], x, (gamma, beta, v), measures, compiled)[:2]


def evonorm_b_in_training(
    kind: str,
    x: tf.Tensor,
    parameters: list[tf.Tensor],
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    synchronized: bool = False,
    compiled: bool | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`evonorm_b` of the batch itself: (y, variance [C], number of values of each channel, over all replicas)."""
    measures = _Measures(epsilon, axis=axis, synchronized=synchronized)
    return _evonorm(BATCH_FORMULAS[kind], x, parameters, measures, compiled)


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
      compiled: as in `evonorm_b`.

    Returns:
      y of x's shape and dtype.

    Source: EvoNorm paper, Table 3. Epsilon as in the authors' code.
    """
    return _evonorm(SAMPLE_FORMULAS[kind], x, (gamma, beta, v), _Measures(epsilon, axis=axis, groups=groups), compiled)[
        0
    ]


# Loops over full-size tensors.


@compilable
def _result(formula, x, vectors, roots):
    return tf.cast(formula.value(raised(x), Vectors(*vectors), Roots(*roots)), x.dtype)


@compilable
def _sums(formula, positions, x, dy, v, roots):
    return formula.sums(positions, x, dy, v, Roots(*roots))


@compilable
def _input_gradient(formula, x, dy, vectors, roots, pulls):
    x, vectors, dtype = raised(x), Vectors(*vectors), x.dtype
    dx = formula.input_gradient(x, raised(dy) * vectors.gamma, vectors.v, Roots(*roots))
    for slope, centre in pulls:
        dx += slope * x if centre is None else slope * (x - centre)
    return tf.cast(dx, dtype)


# Statistics.


@dataclasses.dataclass(frozen=True)
class _Measures:
    """How a formula measures its roots."""

    epsilon: float
    axis: int = -1
    groups: int = 1
    given: tf.Tensor | None = None
    synchronized: bool = False


def _instance_and_batch_roots(formula, x, positions, measures, compiled):
    """(the instance root, the batch root, number of values of each channel or None where the variance is given)."""
    mean, variance = mean_and_variance(compiled, (positions,), x)
    count = tf.cast(tf.shape(x)[positions], mean.dtype)
    if formula.centred:
        root = Root(variance, measures.epsilon, mean, count)
    else:
        root = Root(variance + tf.square(mean), measures.epsilon, None, count)
    if measures.given is not None:
        return root, Root(tf.reshape(measures.given, along(positions)), measures.epsilon), None
    floor = batch_root(mean, variance, count, measures.synchronized, measures.epsilon)
    return root, floor, floor.count


def _evonorm(formula, x, parameters, measures, compiled):
    """(y, variance [C], number of values)."""
    flat, positions = flattened(x, measures.axis)
    if compiled is None:
        compiled = compiles(formula.name, flat)
    shape = along(positions)
    batch = isinstance(formula, BatchFormula)

    def normalized(x, *parameters):
        gamma, beta, *rest = (tf.reshape(p, shape) for p in parameters)
        vectors = Vectors(gamma, beta, rest[0] if formula.learned else tf.ones_like(gamma))
        if batch:
            root, floor, values = _instance_and_batch_roots(formula, x, positions, measures, compiled)
        else:
            root = floor = group_root(x, positions, measures.groups, formula.centred, measures.epsilon, compiled)
            values = None
        roots = Roots(root.value, floor.value)
        y = _result(compiled, (formula,), x, vectors, roots)

        def gradient(dy, dvariance, *_):
            slopes = Slopes(*_sums(compiled, (formula, positions), x, dy, vectors.v, roots))
            pulls = (root.pull(gamma * slopes.root),)
            if batch and values is not None:
                pulls += (floor.pull(gamma * slopes.floor, tf.reshape(dvariance, shape)),)
            dx = _input_gradient(compiled, (formula,), x, dy, vectors, roots, pulls)
            small = [slopes.scale, slopes.shift] + ([gamma * slopes.v] if formula.learned else [])
            return [dx, *(tf.reduce_sum(slope, [0, positions]) for slope in small)]

        variance = tf.reshape(floor.variance if batch else floor.variance[:1], [-1])
        return (y, variance, tf.zeros([], y.dtype) if values is None else values), gradient

    tensors = [tf.convert_to_tensor(p) for p in parameters[: 3 if formula.learned else 2]]
    y, variance, values = with_gradient(normalized, flat, *tensors)
    return tf.reshape(y, tf.shape(x)), variance, values
