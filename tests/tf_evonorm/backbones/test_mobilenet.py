"""MobileNetV2 against Keras' own, and the published sizes of both mobile networks."""

import numpy as np
import pytest
import tensorflow as tf
from reference_weights import copy_layers, double_precision, largest_error, randomize

from tf_evonorm import backbones


def keras_names(model):
    """Name of our layer -> name of the layer in tf.keras.applications.MobileNetV2."""
    parts = {
        "expand": ("expand", "expand_BN"),
        "depthwise": ("depthwise", "depthwise_BN"),
        "project": ("project", "project_BN"),
    }
    names = {"stem.conv": "Conv1", "stem.norm": "bn_Conv1", "head.conv": "Conv_1", "head.norm": "Conv_1_bn"}
    blocks = list(
        dict.fromkeys(layer.name.rsplit(".", 2)[0] for layer in model.layers if ".project.conv" in layer.name)
    )
    for layer in model.layers:
        block, _, rest = layer.name.rpartition(".")
        block, _, part = block.rpartition(".")
        if layer.weights and block in blocks:
            number = sorted(blocks, key=lambda b: [int(n) for n in b[5:].split(".")]).index(block)
            prefix = f"block_{number}_" if number else "expanded_conv_"
            names[layer.name] = prefix + parts[part][rest == "norm"]
    return names


@pytest.mark.parametrize("width", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_mobilenetv2_equals_keras(width):
    with double_precision():
        reference = tf.keras.applications.MobileNetV2((96, 64, 3), alpha=width, include_top=False, weights=None)
        model = backbones.mobilenetv2(width=width)
    randomize(reference)
    copy_layers(reference, model, {ours: reference.get_layer(theirs) for ours, theirs in keras_names(model).items()})
    images = np.random.default_rng(1).normal(size=(2, 96, 64, 3))
    levels = ["block_3_expand", "block_6_expand", "block_13_expand"]  # their inputs are our levels 2, 3 and 4
    outputs = [reference.get_layer(name).input for name in levels] + [reference.output]
    wanted = tf.keras.Model(reference.input, outputs)(images, training=False)
    found = model(images, training=False)
    for level, features in zip("2346", wanted):
        assert largest_error(found[level], features) < 1e-12


def test_published_sizes():
    # Keras' summary of MobileNetV2 and torchvision's mnasnet1_0 (MnasNet-B1), both with a classifier of 1,000 classes.
    classifier = 1280 * 1000 + 1000
    assert backbones.mobilenetv2().count_params() + classifier == 3_538_984
    trainable = sum(int(np.prod(w.shape)) for w in backbones.mnasnet().trainable_weights)
    assert trainable + classifier == 4_383_312


@pytest.mark.parametrize("build", [backbones.mobilenetv2, backbones.mnasnet])
def test_levels(build):
    model = build(width=0.1, input_size=(64, 96, 3))
    assert {k: tuple(v[1:3]) for k, v in model.output_specs.items()} == {
        "2": (16, 24),
        "3": (8, 12),
        "4": (4, 6),
        "5": (2, 3),
    }
    assert model.output["6"].shape[-1] == 1280
    small = build(width=0.1, input_size=(32, 32, 3), stem="small")
    assert [small.output_specs[level][1] for level in "2345"] == [32, 16, 8, 4]


def test_unknown_stem_is_refused():
    with pytest.raises(ValueError, match=r"stem must be 'imagenet' or 'small'. Received stem='cifar'"):
        backbones.mobilenetv2(stem="cifar")
