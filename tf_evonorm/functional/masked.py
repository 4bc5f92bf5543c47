"""Batch statistics that leave masked positions out, for padded sequences: plain operations, channels last."""

from __future__ import annotations

import tensorflow as tf

from tf_evonorm.functional.evonorm import BATCH_FORMULAS, Roots, Vectors
from tf_evonorm.functional.moments import all_sum, moments
from tf_evonorm.functional.reductions import raised


def masked_batch_moments(
    x: tf.Tensor, weights: tf.Tensor, synchronized: bool = False
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mean and biased variance over the batch, of the positions whose weight is 1.

    Args:
      x: [B, ..., C] floating point.
      weights: [B, ..., 1] of 1 and 0, broadcast against x, float32 (float64 where x is).
      synchronized: whether a batch is that of all replicas together.

    Returns:
      (mean [C], variance [C], number of values of each channel). Of no value, mean and variance are 0.
    """
    x, axes = raised(x), list(range(len(x.shape) - 1))
    weights = tf.broadcast_to(weights, tf.concat([tf.shape(x)[:-1], [1]], 0))
    total = all_sum if synchronized else tf.identity
    count = total(tf.reduce_sum(weights))
    divisor = tf.maximum(count, 1)
    mean = total(tf.reduce_sum(weights * x, axes)) / divisor
    return mean, total(tf.reduce_sum(weights * tf.math.squared_difference(x, mean), axes)) / divisor, count


def masked_evonorm_b(
    kind: str,
    x: tf.Tensor,
    weights: tf.Tensor,
    parameters: list[tf.Tensor],
    *,
    epsilon: float = 1e-5,
    synchronized: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`evonorm_b_in_training` whose batch variance is that of the positions whose weight is 1."""
    formula = BATCH_FORMULAS[kind]
    gamma, beta, *rest = parameters
    mean, spread = moments(x, "instance")
    _, variance, values = masked_batch_moments(x, weights, synchronized)
    root = tf.sqrt((spread if formula.centred else spread + tf.square(mean)) + epsilon)
    vectors = Vectors(gamma, beta, rest[0] if formula.learned else tf.ones_like(gamma))
    y = formula.value(raised(x), vectors, Roots(root, tf.sqrt(variance + epsilon)))
    return tf.cast(y, x.dtype), variance, values
