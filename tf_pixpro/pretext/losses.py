"""The pretext losses, one number per image.

Features come in as they are; gradients flow wherever the caller lets them.
"""

from __future__ import annotations

import functools

import tensorflow as tf

from tf_evonorm import functional
from tf_evonorm.mistakes import Mistake
from tf_pixpro.pretext.pairwise import BlockPairs

_NEVER = -1e30  # a logit that takes no part; minus infinity would make slopes of 0 * infinity


def pixel_consistency(prediction: tf.Tensor, target: tf.Tensor, mask: tf.Tensor | BlockPairs) -> tf.Tensor:
    """Pixel-to-propagation consistency of one direction (PixPro).

    Args:
      prediction: [B, h, w, D], the propagated pixels of one view, usually of unit length; float32 or float64 (others
        are cast to float32).
      target: [B, h, w, D], the momentum pixels of the other view, usually of unit length and without gradient.
      mask: [B, h*w, h*w] bool or 0/1, the positive pairs, rows for `prediction`; or
        `tf_pixpro.pretext.pairwise.BlockPairs`.

    Returns:
      [B]: -2 times the mean dot product over the positive pairs, in [-2, 2] for unit vectors; 0 for an image without
      positives.

    Raises:
      Mistake: if the two maps differ in shape.

    Source: PixPro section 3.2, equation 5. The factor 2 (the paper has none) and the 1e-6 in the denominator are the
      authors' code.
    """
    numbers = _per_pixel(_consistency, prediction, target, mask)
    similarity, positives = tf.unstack(tf.reduce_sum(numbers, axis=1), num=2, axis=-1)
    return -2.0 * similarity / (positives + 1e-6)


def pixel_contrast(
    query: tf.Tensor, key: tf.Tensor, mask: tf.Tensor | BlockPairs, temperature: float = 0.3
) -> tf.Tensor:
    """Pixel contrast of one direction (PixContrast).

    For each pixel i of the first view that has a positive: -log(sum over positives j of e^(q_i . k_j / temperature) /
      the same sum over all j); then the mean over those pixels.

    Args:
      query: [B, h, w, D], pixels of one view, usually of unit length; float32 or float64 (others are cast to float32).
      key: [B, h, w, D], the momentum pixels of the other view, usually of unit length and without gradient.
      mask: [B, h*w, h*w] bool or 0/1, the positive pairs, rows for `query`; or `tf_pixpro.pretext.pairwise.BlockPairs`.
      temperature: divides the similarities.

    Returns:
      [B], not negative; 0 for an image without positives.

    Raises:
      Mistake: if the two maps differ in shape or the temperature is not positive.

    Source: PixPro section 3.1, equation 2; never released by the authors. The logarithm is taken pixel by pixel and the
      mean over the pixels in the intersection of the views, which are those with a positive.
    """
    check_temperature(temperature)
    numbers = _per_pixel(functools.partial(_contrast, temperature=temperature), query, key, mask)
    losses, pixels = tf.unstack(tf.reduce_sum(numbers, axis=1), num=2, axis=-1)
    return losses / tf.maximum(pixels, 1.0)


def instance_consistency(prediction: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Consistency of one direction between whole views (BYOL): -2 p . t, [B] of [B, D] and [B, D].

    Vectors are usually of unit length.

    Source: the authors' instance branch; the paper's own is `instance_contrast`.
    """
    return -2.0 * tf.reduce_sum(prediction * target, axis=-1)


def instance_contrast(query: tf.Tensor, key: tf.Tensor, same_view: tf.Tensor, temperature: float = 0.1) -> tf.Tensor:
    """Contrast of one direction between whole views (SimCLR's NT-Xent).

    Negatives are all views of all other images on all replicas.

    Args:
      query: [B, D] of one view of this replica's images, usually of unit length.
      key: [B, D] of the other view, from the momentum branch; the one of the same image is the positive.
      same_view: [B, D] of the query's own view, from the momentum branch; those of other images are negatives too.
      temperature: divides the similarities.

    Returns:
      [B], not negative. Keys get no gradient.

    Raises:
      Mistake: if the temperature is not positive.

    Source: SimCLR, arXiv 2002.05709, equation 1, which the paper adds to its pixel term (section 3.3). There both views
      go through one encoder; here keys come from the momentum encoder, as those of the pixel term do. All replicas must
      hold the same number of images.
    """
    check_temperature(temperature)
    key, same_view = tf.stop_gradient(key), tf.stop_gradient(same_view)
    positive = tf.reduce_sum(query * key, axis=-1, keepdims=True) / temperature
    own = tf.range(tf.shape(query)[0])
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        replica = tf.distribute.get_replica_context()
        own += tf.cast(replica.replica_id_in_sync_group, own.dtype) * tf.size(own)
        key, same_view = replica.all_gather([key, same_view], axis=0)
    itself = tf.one_hot(own, tf.shape(key)[0], on_value=True, off_value=False, dtype=tf.bool)
    across = tf.matmul(query, key, transpose_b=True) / temperature
    within = tf.where(itself, _NEVER, tf.matmul(query, same_view, transpose_b=True) / temperature)
    return tf.reduce_logsumexp(tf.concat([across, within], axis=-1), axis=-1) - positive[:, 0]


def check_temperature(temperature: float) -> None:
    """Refuses a temperature that is not positive."""
    if not temperature > 0:
        raise Mistake(f"temperature must be positive. Received temperature={temperature}. Pass for example 0.3.")


def check_weight(weight: float) -> None:
    """Refuses a negative weight of a term."""
    if not weight >= 0:
        raise Mistake(f"the weight of a term must not be negative. Received weight={weight}. Pass for example 1.")


def _per_pixel(function, query, key, mask):
    """`function(query, key, mask)` of pixels in a row, [B, h*w, k], all at once or in blocks."""
    query, key = (functional.raised(tf.convert_to_tensor(value)) for value in (query, key))
    if not query.shape.is_compatible_with(key.shape):
        raise Mistake(f"both must be maps of one shape [B, h, w, D]. Received {query.shape} and {key.shape}.")
    query, key = _flat(query), _flat(tf.cast(key, query.dtype))
    if isinstance(mask, BlockPairs):
        return mask.per_pixel(function, query, key)
    return function(query, key, mask)


def _flat(features):
    rows, columns = (features.shape[axis] or tf.shape(features)[axis] for axis in (1, 2))
    return tf.reshape(features, [tf.shape(features)[0], rows * columns, features.shape[-1]])


def _consistency(prediction, target, mask):
    """Sum over the positives j of <p_i, t_j>, and their number."""
    mask = tf.cast(mask, prediction.dtype)
    # One product with the mask instead of a map of all similarities.
    similarity = tf.reduce_sum(prediction * tf.matmul(mask, target), axis=-1)
    return tf.stack([similarity, tf.reduce_sum(mask, axis=-1)], axis=-1)


def _contrast(query, key, mask, temperature):
    """The logarithmic loss of each pixel, 0 if it has no positive, and whether it has one."""
    mask = tf.cast(mask, tf.bool)
    logits = tf.matmul(query, key, transpose_b=True) / temperature
    positives = tf.reduce_logsumexp(tf.where(mask, logits, _NEVER), axis=-1)
    matched = tf.reduce_any(mask, axis=-1)
    losses = tf.where(matched, tf.reduce_logsumexp(logits, axis=-1) - positives, 0.0)
    return tf.stack([losses, tf.cast(matched, losses.dtype)], axis=-1)
