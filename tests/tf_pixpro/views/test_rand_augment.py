"""RandAugment's operations against Pillow, on which the authors' are; seeds, and how often each is drawn."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from tf_pixpro.views import rand_augment

FILL = tuple(int(value) for value in rand_augment.FILL)


def picture(height=40, width=56):
    """Smooth colours with some noise: interpolation and histograms both show."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 3 + 20, y * 4 + 10, 200 - (x + y)], -1)
    return np.clip(smooth + np.random.default_rng(0).integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)


def affine(image, matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL)


# Strength 0.7 (of 1), sign -1; the ranges of the authors' `rand_augment.py`.
PILLOW = {
    "AutoContrast": ImageOps.autocontrast,
    "Equalize": ImageOps.equalize,
    "Invert": ImageOps.invert,
    "Rotate": lambda i: i.rotate(-21, Image.Resampling.BILINEAR, fillcolor=FILL),
    "Posterize": lambda i: ImageOps.posterize(i, 2),
    "Solarize": lambda i: ImageOps.solarize(i, 179),
    "SolarizeAdd": lambda i: i.point([min(255, v + 77) if v < 128 else v for v in range(256)] * 3),
    "Color": lambda i: ImageEnhance.Color(i).enhance(1.36),
    "Contrast": lambda i: ImageEnhance.Contrast(i).enhance(1.36),
    "Brightness": lambda i: ImageEnhance.Brightness(i).enhance(1.36),
    "Sharpness": lambda i: ImageEnhance.Sharpness(i).enhance(1.36),
    "ShearX": lambda i: affine(i, (1, -0.21, 0, 0, 1, 0)),
    "ShearY": lambda i: affine(i, (1, 0, 0, -0.21, 1, 0)),
    "TranslateX": lambda i: affine(i, (1, 0, -0.315 * i.size[0], 0, 1, 0)),
    "TranslateY": lambda i: affine(i, (1, 0, 0, 0, 1, -0.315 * i.size[1])),
}


def test_there_are_the_authors_fifteen():
    assert set(PILLOW) == set(rand_augment.OPERATIONS)


@pytest.mark.parametrize("name", PILLOW)
def test_operations_are_pillows(name):
    source = picture()
    expected = np.asarray(PILLOW[name](Image.fromarray(source)), np.float32)
    planes = tf.constant(source.transpose(2, 0, 1), tf.float32)
    result = rand_augment.OPERATIONS[name](planes, tf.constant(0.7), tf.constant(-1.0)).numpy().transpose(1, 2, 0)
    far = np.abs(np.rint(result) - expected).max(-1) > 2
    # Where a position falls between the image and its outside, Pillow takes the fill alone and we a mixture: one line
    # of pixels.
    edges = 0.1 if name in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY") else 0.0
    assert far.mean() <= edges, far.mean()


def test_same_seed_same_image_alone_and_in_tf_data():
    planes = tf.constant(picture().transpose(2, 0, 1), tf.float32)
    make = tf.function(lambda seed: rand_augment.rand_augmented(planes, seed))
    results = [make(tf.constant([seed, 1])).numpy() for seed in range(12)]
    data = tf.data.Dataset.range(12).map(lambda n: rand_augment.rand_augmented(planes, tf.stack([n, 1])))
    for alone, inside in zip(results, data):
        np.testing.assert_allclose(alone, inside, atol=0.02)
    assert len({result.tobytes() for result in results}) > 6
    for result in results:
        assert result.shape == (3, 40, 56) and result.min() >= 0 and result.max() <= 255


def test_half_of_the_operations_are_left_out():
    """Two draws at probability 1/2 leave a quarter of the images as they are (some operations at full strength do
    nothing too)."""
    planes = tf.constant(picture().transpose(2, 0, 1), tf.float32)
    make = tf.function(lambda seed: tf.reduce_all(rand_augment.rand_augmented(planes, seed) == planes))
    same = np.mean([bool(make(tf.constant([seed, 5]))) for seed in range(400)])
    assert 0.17 < same < 0.42
