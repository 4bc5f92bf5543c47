"""SpineNet against Model Garden's."""

import re

import numpy as np
import pytest
import tensorflow as tf
from reference_weights import copy_layers, double_precision, largest_error, randomize

from tf_evonorm import backbones
from tf_evonorm.backbones.spinenet import BLOCKS


def in_order(model, kind):
    """The layers of a model of one Keras class, in the order in which they were made."""
    layers = [layer for layer in model.layers if type(layer).__name__ == kind]
    return sorted(layers, key=lambda layer: int((re.findall(r"_(\d+)$", layer.name) or ["0"])[0]))


def model_garden_layers(model, reference, repeats):
    """Name of our layer -> layer of Model Garden's SpineNet, by the order in which both are made."""
    ours = {layer.name for layer in model.layers}
    convolutions, norms = iter(in_order(reference, "Conv2D")), iter(in_order(reference, "BatchNormalization"))
    blocks = {kind: iter(in_order(reference, kind)) for kind in ("BottleneckBlock", "ResidualBlock")}
    renamed = {}

    def pair(convolution, norm):
        renamed[convolution], renamed[norm] = next(convolutions), next(norms)

    def group(name, kind):
        for repeat in range(repeats):
            prefix = f"{name}.{repeat}"
            if f"{prefix}.conv1" not in ours:  # no level asked for reads this block: in neither model
                continue
            block = next(blocks[kind])
            for part in (1, 2, 3)[: 3 if kind == "BottleneckBlock" else 2]:
                renamed[f"{prefix}.conv{part}"] = getattr(block, f"_conv{part}")
                renamed[f"{prefix}.bn{part}"] = getattr(block, f"_norm{part}")
            if f"{prefix}.downsample.0" in ours:
                renamed[f"{prefix}.downsample.0"] = block._shortcut
                renamed[f"{prefix}.downsample.1"] = block._norm0

    pair("stem.conv", "stem.norm")
    group("stem.0", "BottleneckBlock")
    group("stem.1", "BottleneckBlock")
    for number, spec in enumerate(BLOCKS):
        for parent in spec.parents:
            for part in (1, 2, 3):
                if f"block{number}.from{parent}.conv{part}" in ours:
                    pair(f"block{number}.from{parent}.conv{part}", f"block{number}.from{parent}.norm{part}")
        group(f"block{number}", {"bottleneck": "BottleneckBlock", "basic_block": "ResidualBlock"}[spec.block.__name__])
    for level in range(3, 8):
        pair(f"level{level}.conv", f"level{level}.norm")
    return renamed


def check_parity(variant):
    spinenet = pytest.importorskip("official.vision.modeling.backbones.spinenet")
    scale = spinenet.SCALING_MAP[variant]
    tf.keras.backend.clear_session()
    with double_precision():
        reference = spinenet.SpineNet(tf.keras.layers.InputSpec(shape=[None, 128, 256, 3]), **scale)
        model = backbones.spinenet(variant, input_size=(128, 256, 3))
    randomize(reference)
    copy_layers(reference, model, model_garden_layers(model, reference, scale["block_repeats"]))
    images = np.random.default_rng(1).normal(size=(1, 128, 256, 3))
    wanted, found = reference(images, training=False), model(images, training=False)
    for level in "34567":
        assert largest_error(found[level], wanted[level]) < 1e-12
    specs = {level: spec.as_list() for level, spec in reference.output_specs.items()}
    assert {level: spec.as_list() for level, spec in model.output_specs.items()} == specs


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["49S", "49", "96", "143"])
def test_equals_model_garden(variant):
    check_parity(variant)


def test_runs_on_small_images_of_unknown_size():
    model = backbones.spinenet("49S", width=0.1, stem="small", min_level=2, max_level=5)
    levels = model(np.ones((2, 32, 64, 3), "float32"))
    assert {k: tuple(v.shape[1:3]) for k, v in levels.items()} == {
        "2": (32, 64),
        "3": (16, 32),
        "4": (8, 16),
        "5": (4, 8),
    }


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(variant="50"), "variant must be one of .* Received variant='50'"),
        (dict(input_size=(100, 128, 3)), r"multiples of 128. Received input_size=\(100, 128, 3\)"),
        (dict(min_level=1), "2 <= min_level <= max_level <= 7. Received 1 and 7"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        backbones.spinenet(**arguments)
