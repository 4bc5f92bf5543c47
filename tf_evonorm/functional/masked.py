"""Moments and formulas that leave masked positions out, for padded sequences: plain operations, channels last."""

from __future__ import annotations

import tensorflow as tf

from tf_evonorm.functional.evonorm import BATCH_FORMULAS, SAMPLE_FORMULAS, Roots, Vectors
from tf_evonorm.functional.moments import all_sum
from tf_evonorm.functional.reductions import raised


def masked_moments(
    x: tf.Tensor, weights: tf.Tensor, over: str, groups: int = 1, synchronized: bool = False
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mean and biased variance as in `moments`, of the positions whose weight is 1.

    Args:
      x: [B, ..., C] floating point.
      weights: [B, ..., 1] of 1 and 0, broadcast against x, float32 (float64 where x is).
      over: "batch", "instance", "layer" or "group".
      groups: number of groups; read only where over="group".
      synchronized: whether a batch is that of all replicas together.

    Returns:
      (mean, variance, number of values of each channel and set), broadcast against x. Of no value, mean and variance are 0.
    """
    x, rank = raised(x), len(x.shape)
    weights = tf.broadcast_to(weights, tf.concat([tf.shape(x)[:-1], [1]], 0))
    axes = list(range(0 if over == "batch" else 1, rank - 1))
    groups = {"layer": 1, "group": groups}.get(over, x.shape[-1])

    def total(values):
        values = tf.reduce_sum(values, axes, keepdims=True)
        if over == "batch":
            return all_sum(values) if synchronized else values
        if groups == x.shape[-1]:
            return values
        size = x.shape[-1] // groups
        split = tf.reshape(values, [-1, *[1] * (rank - 2), groups, size])
        return tf.repeat(tf.reduce_sum(split, -1), size, axis=-1)

    count = total(weights * tf.ones([x.shape[-1]], x.dtype))
    mean = total(weights * x) / tf.maximum(count, 1)
    variance = total(weights * tf.math.squared_difference(x, mean)) / tf.maximum(count, 1)
    return mean, variance, count


def masked_evonorm_b(
    kind: str,
    x: tf.Tensor,
    weights: tf.Tensor,
    parameters: list[tf.Tensor],
    epsilon: float,
    variance: tf.Tensor | None = None,
    synchronized: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`evonorm_b` with statistics of the positions whose weight is 1: (y, variance [C], number of values [C])."""
    formula = BATCH_FORMULAS[kind]
    mean, spread, _ = masked_moments(x, weights, "instance")
    root = tf.sqrt((spread if formula.centred else spread + tf.square(mean)) + epsilon)
    values = tf.zeros_like(parameters[0])
    if variance is None:
        _, variance, values = (tf.reshape(m, [-1]) for m in masked_moments(x, weights, "batch", 1, synchronized))
    return _value(formula, x, parameters, Roots(root, tf.sqrt(variance + epsilon))), variance, values


def masked_evonorm_s(
    kind: str, x: tf.Tensor, weights: tf.Tensor, parameters: list[tf.Tensor], epsilon: float, groups: int
) -> tf.Tensor:
    """`evonorm_s` with statistics of the positions whose weight is 1."""
    formula = SAMPLE_FORMULAS[kind]
    mean, variance, _ = masked_moments(x, weights, "group", groups)
    if not formula.centred:
        variance += tf.square(mean)
    root = tf.sqrt(variance + epsilon)
    return _value(formula, x, parameters, Roots(root, root))


def _value(formula, x, parameters, roots):
    gamma, beta, *rest = parameters
    vectors = Vectors(gamma, beta, rest[0] if formula.learned else tf.ones_like(gamma))
    return tf.cast(formula.value(raised(x), vectors, roots), x.dtype)
