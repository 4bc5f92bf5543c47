"""Gaussian blur against Pillow's, and where the difference comes from."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFilter

from tf_pixpro.views import colour

NOISE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)


def rounded_after_each_pass(image, taps):
    """Pillow's order: three passes along the rows, three along the columns, each to whole values."""
    image = image.astype(np.float64)
    for axis in (1, 1, 1, 0, 0, 0):
        padding = [(0, 0)] * 3
        padding[axis] = (2, 2)
        padded, count = np.pad(image, padding, mode="edge"), image.shape[axis]
        shifted = {o: np.take(padded, range(2 + o, 2 + o + count), axis) for o in range(-2, 3)}
        image = np.floor(sum(taps[abs(o)] * part for o, part in shifted.items()) + 0.5)
    return image


@pytest.mark.parametrize("sigma, levels", [(0.1, 3), (0.31, 3), (0.5, 2), (0.8, 2), (1.2, 2), (2.0, 1)])
def test_blur_differs_from_pillows_by_the_roundings_between_passes(sigma, levels):
    pillow = np.asarray(Image.fromarray(NOISE).filter(ImageFilter.GaussianBlur(sigma)), np.float64)
    ours = colour.blurred(tf.constant(NOISE.transpose(2, 0, 1), tf.float32), sigma).numpy().transpose(1, 2, 0)
    assert np.abs(np.rint(ours) - pillow).max() <= levels
    taps = colour._box_taps(tf.constant(sigma)).numpy().astype(np.float64)
    difference = np.abs(rounded_after_each_pass(NOISE, taps) - pillow)
    # Pillow's weights are of 24 bits: at a half the rounding may go the other way.
    assert difference.max() <= 1 and (difference > 0).mean() < (0.1 if sigma in (0.1, 2.0) else 1e-6)
