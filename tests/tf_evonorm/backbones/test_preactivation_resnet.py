"""Pre-activation ResNet against the formula written out, and its published sizes."""

import numpy as np
import pytest
import tensorflow as tf
from reference_weights import double_precision, largest_error, randomize

from tf_evonorm import backbones


def written_out(model, images, blocks, bottleneck):
    """Level 5 in inference, by tf.nn in float64: the published order of operations."""

    def convolve(x, name, stride=1):
        (kernel,) = model.get_layer(name).get_weights()
        side = (kernel.shape[0] - 1) // 2
        padding = [[0, 0], [side, side], [side, side], [0, 0]]
        return tf.nn.conv2d(x, tf.cast(kernel, tf.float64), stride, padding)

    def norm_act(x, name):
        gamma, beta, mean, variance = (w.astype("float64") for w in model.get_layer(name).get_weights())
        return tf.nn.relu((x - mean) / np.sqrt(variance + 1e-5) * gamma + beta)

    x = convolve(tf.cast(images, tf.float64), "conv1", 2)
    x = tf.nn.max_pool2d(x, 3, 2, [[0, 0], [1, 1], [1, 1], [0, 0]])
    for level, repeats in enumerate(blocks, start=1):
        for repeat in range(repeats):
            name, stride = f"layer{level}.{repeat}", 2 if level > 1 and repeat == 0 else 1
            entry = norm_act(x, f"{name}.bn1")
            shortcut = convolve(entry, f"{name}.downsample", stride) if repeat == 0 else x
            y = convolve(entry, f"{name}.conv1", 1 if bottleneck else stride)
            y = convolve(norm_act(y, f"{name}.bn2"), f"{name}.conv2", stride if bottleneck else 1)
            if bottleneck:
                y = convolve(norm_act(y, f"{name}.bn3"), f"{name}.conv3")
            x = y + shortcut
    return norm_act(x, "bn")


@pytest.mark.parametrize("depth", [18, 50])
def test_equals_the_published_order(depth):
    blocks = (2, 1, 2, 1)
    with double_precision():
        model = backbones.preactivation_resnet(depth, width=1 / 8, blocks=blocks)
    randomize(model)
    images = np.random.default_rng(1).normal(size=(2, 96, 80, 3))
    wanted = written_out(model, images, blocks, depth == 50)
    assert largest_error(model(images, training=False)["5"], wanted) < 1e-12


def test_published_size_of_50():
    # BiT ResNet-50x1 (Kolesnikov et al. 2020), of the same form: 25,549,352 with a classifier of 1,000 classes.
    model = backbones.preactivation_resnet(50)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 25_549_352 - 2048 * 1000 - 1000


def test_every_level_is_normalized_and_full():
    """All norm_acts are asked for with activation, and each level is the output of one."""
    asked = []

    def norm_act(**arguments):
        asked.append(arguments)
        return tf.keras.layers.Activation("relu", name=arguments["name"])

    model = backbones.preactivation_resnet(18, norm_act, width=1 / 8, stem="small", input_size=(32, 32, 3))
    assert all(set(arguments) == {"name"} for arguments in asked)
    assert len(asked) == 2 * 8 + 1
    assert [model.output_specs[level].as_list()[1:] for level in "2345"] == [
        [32, 32, 8],
        [16, 16, 16],
        [8, 8, 32],
        [4, 4, 64],
    ]
    levels = model(np.random.default_rng(1).normal(size=(1, 32, 32, 3)).astype("float32"))
    assert all(np.min(features) >= 0 for features in levels.values())
