"""Classification on Model Garden's task: what images go through, what is decayed, what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm.backbones import resnet
from tf_pixpro.transfer import classification
from tf_pixpro.transfer.classification import classifier, half_squared_norm, training_view
from tf_pixpro.views import augment

WHOLE = {"size": (32, 32), "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0}


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)


def prepared(image, seed=(1, 2), **options):
    example = {"bytes": tf.io.encode_png(image), "label": tf.constant(3, tf.int64)}
    values, label = training_view(**{**WHOLE, **options})(example, tf.constant(seed))
    assert label == 3
    return values.numpy()


def test_without_variation_the_image_is_normalised(image):
    expected = (image / 255 - np.array(augment.MEAN)) / np.array(augment.DEVIATION)
    np.testing.assert_allclose(prepared(image), expected, atol=1e-5)
    np.testing.assert_allclose(prepared(image, flip=1.0), expected[:, ::-1], atol=1e-5)


def test_a_shift_moves_the_image_and_zeros_come_in(image):
    padded = np.pad(prepared(image), [(4, 4), (4, 4), (0, 0)])
    windows = {(y, x): padded[y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
    found = set()
    for seed in range(40):
        shifted = prepared(image, (seed, 0), shift=4)
        (place,) = [place for place, window in windows.items() if np.array_equal(window, shifted)]
        found.add(place)
    assert len(found) > 20 and {y for y, _ in found} == {x for _, x in found} == set(range(9))


def test_randaugment_works_on_the_colours_of_the_image(image):
    np.testing.assert_array_equal(classification._colours(tf.constant(prepared(image))), image)
    varied = [prepared(image, (seed, 0), randaugment_layers=2) for seed in range(4)]
    assert all(v.shape == (32, 32, 3) and np.isfinite(v).all() for v in varied)
    assert all(not np.allclose(v, prepared(image, (seed, 0))) for seed, v in enumerate(varied))


def test_randaugment_depends_on_the_seed_of_the_image_alone(image):
    first = prepared(image, (5, 6), randaugment_layers=2)
    tf.random.set_seed(1)
    np.testing.assert_array_equal(prepared(image, (5, 6), randaugment_layers=2), first)
    assert not np.array_equal(prepared(image, (5, 7), randaugment_layers=2), first)


def test_kernels_alone_are_decayed():
    backbone = resnet(18, width=0.125, blocks=(1,), stem="small", kernel_regularizer=half_squared_norm(0.2))
    model = classifier(backbone, 5, weight_decay=0.2)
    kernels = [w for w in model.trainable_weights if "kernel" in w.name]
    assert len(kernels) == 4 and len(model.trainable_weights) > 8
    expected = 0.1 * sum(np.sum(np.square(w.numpy().astype(np.float64))) for w in kernels)
    np.testing.assert_allclose(tf.add_n(model.losses), expected, rtol=1e-5)
    assert half_squared_norm(0.0) is None


def test_a_wrong_smoothing_is_refused():
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\)\. Received label_smoothing=1"):
        classification.ClassificationTask(None, None, None, 10, label_smoothing=1)
