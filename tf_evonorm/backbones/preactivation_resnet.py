"""ResNet v2: pre-activation residual networks of 18 to 152 layers, the form that EvoNorm's authors published."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_evonorm.backbones import convolution
from tf_evonorm.backbones.backbone import Backbone
from tf_evonorm.backbones.resnet import BLOCKS, check_resnet, residual_levels
from tf_evonorm.layers.baselines import BatchNormAct


def preactivation_resnet(
    depth: int = 50,
    norm_act: Callable[..., tf.keras.layers.Layer] | None = None,
    *,
    input_size: Sequence[int | None] = (None, None, 3),
    width: float = 1.0,
    blocks: Sequence[int] | None = None,
    stem: str = "imagenet",
    output_stride: int = 32,
    padding: str = "symmetric",
    kernel_initializer: str | tf.keras.initializers.Initializer | None = "variance_scaling",
    kernel_regularizer: tf.keras.regularizers.Regularizer | None = None,
    name: str | None = None,
) -> Backbone:
    """Builds a pre-activation ResNet (v2).

    The full `norm_act` stands before every convolution of a branch and once at the end, nowhere else: none after the
    stem, none on shortcuts, no ReLU after sums. The first block of a level projects the already activated tensor.

    Args:
        depth: 18 or 34 (two 3x3 convolutions per block); 50, 101 or 152 (bottlenecks).
        norm_act: callable returning a fresh layer, called as `norm_act(name=...)`. None is BatchNorm (epsilon 1e-5,
            momentum 0.9) and ReLU.
        input_size: (height, width, channels) of the images, pixels; None where unknown.
        width: factor of all channel counts, may be a fraction; each product is rounded down.
        blocks: residual blocks of each level, three levels for the networks of CIFAR; None is what the depth says.
        stem: "imagenet", a 7x7 convolution of stride 2 and a max-pool; or "small", one 3x3 convolution of stride 1.
        output_stride: 32, 16 or 8 with the "imagenet" stem; levels beyond it are dilated instead of strided.
        padding: of strided convolutions, "symmetric" (the authors') or "same" (TensorFlow's).
        kernel_initializer: Keras initializer of convolution weights; the default is the authors'. None is normal with
            deviation sqrt(2 / (kernel**2 filters)).
        kernel_regularizer: Keras regularizer of the convolution weights.
        name: name of the model.

    Returns:
        A `Backbone` from [B, H, W, 3] to {"2": [B, H/4, W/4, C], ..., "5": [B, H/32, W/32, 8 C]}, sizes rounded up.
        Every level is the normalized and activated tensor that the next level starts from; "5" is the network's end.

    Raises:
        Mistake: an unknown depth, stem, padding or output stride, or a width that leaves no channel.

    Source: He et al. 2016 (Identity Mappings); placement of EvoNorm's authors (tensorflow/tpu, models/official/resnet),
        which projects the first shortcut of every level, of depths 18 and 34 too. Their max-pool pads as TensorFlow's
        "same"; here it pads as the convolutions do.
    """
    check_resnet(depth, width, blocks, stem, output_stride)
    norm_act = norm_act or BatchNormAct
    convolve = functools.partial(
        convolution.convolve, padding=padding, initializer=kernel_initializer, regularizer=kernel_regularizer
    )
    branch = _bottleneck_branch if depth >= 50 else _basic_branch

    images = tf.keras.Input(input_size, name="images")
    if stem == "imagenet":
        x = convolve(images, int(64 * width), 7, 2, name="conv1")
        x = convolution.max_pool(x, padding, name="maxpool")
    else:
        x = convolve(images, int(64 * width), 3, name="conv1")

    active = []  # what each level starts from: normalized, activated
    for level, (repeats, stride, dilation) in enumerate(residual_levels(blocks or BLOCKS[depth], output_stride)):
        filters = int(64 * 2**level * width)
        for repeat in range(repeats):
            block = f"layer{level + 1}.{repeat}"
            entry = norm_act(name=f"{block}.bn1")(x)
            step = stride if repeat == 0 else 1
            residual = branch(entry, filters, step, dilation, convolve, norm_act, block)
            if repeat == 0:
                active.append(entry)
                x = convolve(entry, residual.shape[-1], 1, step, name=f"{block}.downsample")
            x = tf.keras.layers.Add(name=f"{block}.add")([residual, x])
    active.append(norm_act(name="bn")(x))
    levels = {str(level): features for level, features in enumerate(active[1:], start=2)}
    return Backbone(inputs=images, outputs=levels, name=name or f"preactivation_resnet{depth}")


def _basic_branch(x, filters, stride, dilation, convolve, norm_act, name):
    """3x3 (strided) and 3x3 convolutions of an activated tensor."""
    x = convolve(x, filters, 3, stride, dilation, name=f"{name}.conv1")
    x = norm_act(name=f"{name}.bn2")(x)
    return convolve(x, filters, 3, 1, dilation, name=f"{name}.conv2")


def _bottleneck_branch(x, filters, stride, dilation, convolve, norm_act, name):
    """1x1, 3x3 (strided) and 1x1 convolutions of an activated tensor."""
    x = convolve(x, filters, name=f"{name}.conv1")
    x = norm_act(name=f"{name}.bn2")(x)
    x = convolve(x, filters, 3, stride, dilation, name=f"{name}.conv2")
    x = norm_act(name=f"{name}.bn3")(x)
    return convolve(x, 4 * filters, name=f"{name}.conv3")
