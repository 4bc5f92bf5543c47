"""The pretext losses, one number per image; features come in as they are and gradients go wherever the caller lets them."""

import tensorflow as tf


def _flat(features: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(features)
    return tf.reshape(features, [shape[0], shape[1] * shape[2], features.shape[-1]])


def pixel_consistency(prediction, target, mask) -> tf.Tensor:
    """Pixel-to-propagation consistency of one direction (PixPro).

    Args:
      prediction: [B, h, w, D], the propagated pixels of one view, usually of unit length; float32 or float64 (others are cast to float32).
      target: [B, h, w, D], the momentum pixels of the other view, usually of unit length and without gradient.
      mask: [B, h*w, h*w] bool or 0/1, the positive pairs; rows for `prediction`.

    Returns:
      [B]: -2 times the mean dot product over the positive pairs, in [-2, 2] for unit vectors; 0 for an image without positives.

    Raises:
      ValueError: if the two maps differ in shape.

    Source: PixPro section 3.2, equation 5. The factor 2 (the paper has none) and the 1e-6 in the denominator are the authors' code.
    """
    prediction, target = tf.convert_to_tensor(prediction), tf.convert_to_tensor(target)
    if not prediction.shape.is_compatible_with(target.shape):
        raise ValueError(
            f"prediction and target must be maps of one shape [B, h, w, D]. Received {prediction.shape} and {target.shape}."
        )
    dtype = tf.float64 if prediction.dtype == tf.float64 else tf.float32
    prediction, target = _flat(tf.cast(prediction, dtype)), _flat(tf.cast(target, dtype))
    mask = tf.cast(mask, dtype)
    # Sum over pairs of mask_ij <p_i, t_j>: one product with the mask instead of the [h*w, h*w] map of similarities.
    similarity = tf.reduce_sum(prediction * tf.matmul(mask, target), axis=[1, 2])
    return -2.0 * similarity / (tf.reduce_sum(mask, axis=[1, 2]) + 1e-6)
