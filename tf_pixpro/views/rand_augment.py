"""RandAugment: a few operations, drawn at random, on an image [3, h, w], float32 in 0..255."""

from __future__ import annotations

import math

import tensorflow as tf

from tf_pixpro.views.colour import brightened, contrasted, saturated

FILL = (124.0, 116.0, 104.0)  # ImageNet's mean colour, for what comes in from outside the image


def rand_augmented(
    planes: tf.Tensor,
    seed: tf.Tensor,
    operations: int = 2,
    magnitude: float = 10.0,
    spread: float = 0.5,
    probability: float = 0.5,
) -> tf.Tensor:
    """Applies operations drawn from `OPERATIONS`.

    Args:
      planes: [3, h, w] float32 in 0..255.
      seed: [2] integer; the same seed gives the same image.
      operations: how many are drawn.
      magnitude: mean strength, 0..10.
      spread: standard deviation of the strength, which then is cut to 0..10.
      probability: of each drawn operation to be applied.

    Returns:
      [3, h, w] float32 in 0..255.

    Source: the authors' set "RandAug" (`rand-n2-m10-mstd0.5`), after Cubuk et al., arXiv 1909.13719. There, geometric
      operations take bilinear or bicubic interpolation at random; here it is bilinear.
    """
    draw = tf.unstack(tf.random.stateless_uniform([3, operations], seed), axis=1)
    noise = tf.unstack(tf.random.stateless_normal([operations], tf.random.experimental.stateless_fold_in(seed, 1)))
    specs = [tf.TensorSpec(planes.shape, tf.float32), tf.TensorSpec([], tf.float32), tf.TensorSpec([], tf.float32)]
    # As in colour jitter: `tf.switch_case` would compute every branch.
    branches = [tf.function(change).get_concrete_function(*specs) for change in (_unchanged, *OPERATIONS.values())]
    for number in range(operations):
        applied, which, side = tf.unstack(draw[number])
        strength = tf.clip_by_value(magnitude + spread * noise[number], 0.0, 10.0) / 10.0
        branch = tf.where(applied < probability, 1 + tf.cast(which * len(OPERATIONS), tf.int32), 0)
        inputs = [planes, strength, tf.where(side < 0.5, -1.0, 1.0)]
        (planes,) = tf.raw_ops.Case(
            branch_index=branch, input=inputs, Tout=[tf.float32], branches=branches, output_shapes=[planes.shape]
        )
    return planes


def _unchanged(planes, strength, sign):
    return tf.identity(planes)


def autocontrast(planes: tf.Tensor) -> tf.Tensor:
    """Each channel's values spread over 0..255 (Pillow's autocontrast)."""
    low, high = (reduce(planes, axis=[1, 2], keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    spread = (planes - low) * 255.0 / tf.maximum(high - low, 1.0)
    return tf.where(high > low, tf.clip_by_value(spread, 0.0, 255.0), planes)


def equalize(planes: tf.Tensor) -> tf.Tensor:
    """Each channel's values spread so that all are about as frequent (Pillow's equalize)."""
    return tf.stack([_equalize_channel(plane) for plane in tf.unstack(tf.cast(tf.round(planes), tf.int32))])


def _equalize_channel(plane):
    counts = tf.math.bincount(tf.reshape(plane, [-1]), minlength=256, maxlength=256)
    last = tf.gather(counts, tf.reduce_max(plane))
    step = (tf.size(plane) - last) // 255
    before = tf.cumsum(counts, exclusive=True)
    levels = tf.minimum((before + step // 2) // tf.maximum(step, 1), 255)
    return tf.cast(tf.where(step > 0, tf.gather(levels, plane), plane), tf.float32)


def posterize(planes: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Values with the highest `bits` of their 8 bits; `bits` a floating whole number."""
    unit = tf.pow(2.0, 8.0 - bits)
    return tf.floor(tf.round(planes) / unit) * unit


def solarize(planes: tf.Tensor, threshold: tf.Tensor | float) -> tf.Tensor:
    """Values from a threshold on inverted."""
    return tf.where(planes < threshold, planes, 255.0 - planes)


def solarize_add(planes: tf.Tensor, amount: tf.Tensor | float) -> tf.Tensor:
    """Values below 128 raised by an amount."""
    return tf.where(planes < 128.0, tf.minimum(planes + amount, 255.0), planes)


def sharpen(planes: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """Away from (factor above 1) or toward a smoothed image; the outermost pixels stay."""
    weights = tf.reshape(tf.constant([1.0, 1, 1, 1, 5, 1, 1, 1, 1]) / 13.0, [3, 3, 1, 1])
    smooth = tf.nn.conv2d(planes[..., tf.newaxis], weights, 1, "VALID")[..., 0]
    rows, columns = tf.shape(planes)[1], tf.shape(planes)[2]
    inner = tf.pad(tf.ones([rows - 2, columns - 2], tf.bool), [[1, 1], [1, 1]])
    smooth = tf.where(inner, tf.pad(tf.round(smooth), [[0, 0], [1, 1], [1, 1]]), planes)
    return tf.clip_by_value(smooth + factor * (planes - smooth), 0.0, 255.0)


def transformed(planes: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """An affine transformation, bilinear, with `FILL` from outside.

    Args:
      planes: [3, h, w].
      matrix: six numbers that map a position (x, y, 1) of the result to one of the image, in pixels from its corner.
    """
    a, b, c, d, e, f = matrix
    # The kernel counts from the middle of the first pixel.
    rows = [a, b, c + (a + b - 1.0) / 2.0, d, e, f + (d + e - 1.0) / 2.0, 0.0, 0.0]
    fill = tf.constant(FILL)
    image = tf.transpose(planes, [1, 2, 0]) - fill
    result = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.stack([tf.convert_to_tensor(value, tf.float32) for value in rows])[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(tf.transpose(result[0] + fill, [2, 0, 1]), planes.shape)


def rotate(planes: tf.Tensor, degrees: tf.Tensor | float) -> tf.Tensor:
    """Rotated about the image's centre, counter-clockwise."""
    angle = -degrees * (math.pi / 180.0)
    cos, sin = tf.cos(angle), tf.sin(angle)
    x, y = (tf.cast(tf.shape(planes)[axis], tf.float32) / 2.0 for axis in (2, 1))
    return transformed(planes, [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y])


def _sheared(planes, across, down):
    return transformed(planes, [1.0, across, 0.0, down, 1.0, 0.0])


def _shifted(planes, across, down):
    rows, columns = (tf.cast(tf.shape(planes)[axis], tf.float32) for axis in (1, 2))
    return transformed(planes, [1.0, 0.0, across * columns, 0.0, 1.0, down * rows])


def _factor(strength):
    return 0.1 + 1.8 * strength


# Name -> (planes, strength in 0..1, sign -1 or 1) -> planes; ranges are the authors'.
OPERATIONS = {
    "AutoContrast": lambda x, strength, sign: autocontrast(x),
    "Equalize": lambda x, strength, sign: equalize(x),
    "Invert": lambda x, strength, sign: 255.0 - x,
    "Rotate": lambda x, strength, sign: rotate(x, sign * 30.0 * strength),
    "Posterize": lambda x, strength, sign: posterize(x, tf.floor(4.0 * strength)),
    "Solarize": lambda x, strength, sign: solarize(x, tf.floor(256.0 * strength)),
    "SolarizeAdd": lambda x, strength, sign: solarize_add(x, tf.floor(110.0 * strength)),
    "Color": lambda x, strength, sign: saturated(x, _factor(strength)),
    "Contrast": lambda x, strength, sign: contrasted(x, _factor(strength)),
    "Brightness": lambda x, strength, sign: brightened(x, _factor(strength)),
    "Sharpness": lambda x, strength, sign: sharpen(x, _factor(strength)),
    "ShearX": lambda x, strength, sign: _sheared(x, 0.3 * sign * strength, 0.0),
    "ShearY": lambda x, strength, sign: _sheared(x, 0.0, 0.3 * sign * strength),
    "TranslateX": lambda x, strength, sign: _shifted(x, 0.45 * sign * strength, 0.0),
    "TranslateY": lambda x, strength, sign: _shifted(x, 0.0, 0.45 * sign * strength),
}
