"""EfficientNet against Keras' own, and its published sizes."""

import numpy as np
import pytest
import tensorflow as tf
from reference_weights import copy_layers, double_precision, largest_error, randomize

from tf_evonorm import BatchNormAct, backbones
from tf_evonorm.backbones.inverted_residual import Stage, inverted_residual_network

PUBLISHED = {  # trainable weights with 1,000 classes: torchvision's model table
    "b0": 5_288_548,
    "b1": 7_794_184,
    "b2": 9_109_994,
    "b3": 12_233_232,
    "b4": 19_341_616,
    "b5": 30_389_784,
    "b6": 43_040_704,
    "b7": 66_347_960,
}
PARTS = {
    "expand.conv": "expand_conv",
    "expand.norm": "expand_bn",
    "depthwise.conv": "dwconv",
    "depthwise.norm": "bn",
    "squeeze.reduce": "se_reduce",
    "squeeze.expand": "se_expand",
    "project.conv": "project_conv",
    "project.norm": "project_bn",
}


def keras_name(name):
    """Name of our layer -> name of the layer in tf.keras.applications.EfficientNetB*."""
    if not name.startswith("stage"):
        return {"stem": "stem", "head": "top"}[name[:4]] + {"conv": "_conv", "norm": "_bn"}[name[5:]]
    stage, repeat, part = name.split(".", 2)
    return f"block{stage[5:]}{chr(ord('a') + int(repeat))}_{PARTS[part]}"


def check_parity(variant, size):
    reference = getattr(tf.keras.applications, f"EfficientNet{variant.upper()}")
    with double_precision():
        reference = reference(include_top=False, weights=None, input_shape=(*size, 3))
        model = backbones.efficientnet(variant)
    pixels = next(layer for layer in reference.layers if layer.name == "stem_conv_pad").input
    reference = tf.keras.Model(pixels, [reference.get_layer("block3a_expand_conv").input, reference.output])
    randomize(reference)
    renamed = {layer.name: reference.get_layer(keras_name(layer.name)) for layer in model.layers if layer.weights}
    copy_layers(reference, model, renamed)
    images = np.random.default_rng(1).normal(size=(2, *size, 3))
    wanted = reference(images, training=False)
    found = model(images, training=False)
    assert largest_error(found["2"], wanted[0]) < 1e-12
    assert largest_error(found["6"], wanted[1]) < 1e-12


def test_b0_equals_keras():
    check_parity("b0", (64, 96))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["b1", "b2", "b3", "b4", "b5", "b6", "b7"])
def test_others_equal_keras(variant):
    check_parity(variant, (64, 64))


def published(variant):
    model = backbones.efficientnet(variant)
    weights = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    return weights + 1000 * model.output["6"].shape[-1] + 1000


def test_published_size_of_b0():
    assert published("b0") == PUBLISHED["b0"]


@pytest.mark.slow
@pytest.mark.parametrize("variant", list(PUBLISHED)[1:])
def test_published_sizes(variant):
    assert published(variant) == PUBLISHED[variant]


def test_stochastic_depth_drops_by_seed():
    images = np.random.default_rng(1).normal(size=(8, 16, 16, 3)).astype("float32")

    def two_steps():
        tf.keras.utils.set_random_seed(1)
        model = inverted_residual_network(
            [Stage(2, 8, 3, 1, 3, "2")],
            norm_act=BatchNormAct,
            input_size=(16, 16, 3),
            stem="imagenet",
            stem_channels=8,
            head_channels=8,
            stochastic_depth=0.9,
            seed=3,
            name="small",
        )
        step = tf.function(lambda x: model(x, training=True)["2"])
        return step(images).numpy(), step(images).numpy()

    first, again = two_steps(), two_steps()
    np.testing.assert_array_equal(first, again)
    assert largest_error(first[1], first[0]) > 1e-3  # other branches at the next step


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"variant must be one of .* Received variant='b9'"):
        backbones.efficientnet("b9")
