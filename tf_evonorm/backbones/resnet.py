"""ResNet v1.5: post-activation residual networks of 18 to 152 layers, stride on the 3x3 convolution."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from tf_evonorm.backbones import convolution
from tf_evonorm.backbones.backbone import Backbone
from tf_evonorm.backbones.residual_block import basic_block, bottleneck
from tf_evonorm.layers.baselines import BatchNormAct
from tf_evonorm.mistakes import Mistake

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def resnet(
    depth: int = 50,
    norm_act: Callable[..., tf.keras.layers.Layer] | None = None,
    *,
    input_size: Sequence[int | None] = (None, None, 3),
    width: float = 1.0,
    blocks: Sequence[int] | None = None,
    stem: str = "imagenet",
    output_stride: int = 32,
    padding: str = "symmetric",
    zero_last_gamma: bool = True,
    kernel_initializer: str | tf.keras.initializers.Initializer | None = None,
    kernel_regularizer: tf.keras.regularizers.Regularizer | None = None,
    name: str | None = None,
) -> Backbone:
    """Builds a post-activation ResNet v1.5.

    Layers carry the names of the authors' PyTorch modules (`conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.downsample.0`,
    ...; a `bn` is whatever `norm_act` makes), so converting weights is renaming.

    Args:
        depth: 18 or 34 (two 3x3 convolutions per block); 50, 101 or 152 (bottlenecks).
        norm_act: callable returning a fresh layer, called as `norm_act(apply_act=..., gamma_initializer=...,
            name=...)`. None is BatchNorm (epsilon 1e-5, momentum 0.9) and ReLU. The last norm of a branch and that of a
            shortcut have no activation; a plain ReLU follows their sum.
        input_size: (height, width, channels) of the images, pixels; None where unknown.
        width: factor of all channel counts, may be a fraction; each product is rounded down.
        blocks: residual blocks of each level, three levels for the networks of CIFAR; None is what the depth says.
        stem: "imagenet", a 7x7 convolution of stride 2 and a max-pool; or "small", one 3x3 convolution of stride 1 for
            images of about 32 pixels, which makes every level four times larger.
        output_stride: 32, 16 or 8 with the "imagenet" stem: where a level would go beyond it, the level is dilated
            instead of strided.
        padding: "symmetric", the authors'; or "same", TensorFlow's, as Model Garden's ResNet pads (take it, and a
            `norm_act` of epsilon 1e-3, for weights trained there).
        zero_last_gamma: whether the last gamma of each branch starts at 0, so that blocks start as the identity.
        kernel_initializer: Keras initializer of convolution weights; None is normal with deviation
            sqrt(2 / (kernel**2 filters)).
        kernel_regularizer: Keras regularizer of the convolution weights.
        name: name of the model.

    Returns:
        A `Backbone` from [B, H, W, 3] to {"2": [B, H/4, W/4, C], "3": ..., "4": ..., "5": [B, H/32, W/32, 8 C]}, sizes
        rounded up; C is 64 width, and 256 width with bottlenecks.

    Raises:
        Mistake: an unknown depth, stem, padding or output stride, or a width that leaves no channel.

    Source: He et al. 2015 (Deep Residual Learning), stride, padding, names and initial values as in PixPro's encoder
        (github.com/zdaxie/PixPro, contrast/resnet.py). Model Garden's ResNet differs in padding, epsilon and initial
        values (options here), and projects the first shortcut of depths 18 and 34, where this one is the identity.
        EvoNorm's authors refuse it here, where its affine form leaves sums unnormalized; take `preactivation_resnet`.
    """
    check_resnet(depth, width, blocks, stem, output_stride)
    norm_act = norm_act or BatchNormAct
    convolve = functools.partial(
        convolution.convolve, padding=padding, initializer=kernel_initializer, regularizer=kernel_regularizer
    )
    block = functools.partial(
        bottleneck if depth >= 50 else basic_block,
        convolve=convolve,
        norm_act=norm_act,
        gamma="zeros" if zero_last_gamma else "ones",
    )

    images = tf.keras.Input(input_size, name="images")
    if stem == "imagenet":
        x = convolve(images, int(64 * width), 7, 2, name="conv1")
        x = norm_act(name="bn1")(x)
        x = convolution.max_pool(x, padding, name="maxpool")
    else:
        x = convolve(images, int(64 * width), 3, name="conv1")
        x = norm_act(name="bn1")(x)

    levels = {}
    for level, (repeats, stride, dilation) in enumerate(residual_levels(blocks or BLOCKS[depth], output_stride)):
        for repeat in range(repeats):
            x = block(
                x,
                int(64 * 2**level * width),
                stride=stride if repeat == 0 else 1,
                dilation=dilation,
                name=f"layer{level + 1}.{repeat}",
            )
        levels[str(level + 2)] = x
    return Backbone(inputs=images, outputs=levels, name=name or f"resnet{depth}")


def residual_levels(blocks: Sequence[int], output_stride: int) -> Iterator[tuple[int, int, int]]:
    """Yields (blocks, stride of the first, dilation) of each level, dilated where it would pass the output stride."""
    total, dilation = 4, 1
    for level, repeats in enumerate(blocks):
        stride = 1 if level == 0 else 2
        if total * stride > output_stride:
            stride, dilation = 1, 2 * dilation
        total *= stride
        yield repeats, stride, dilation


def check_resnet(depth: int, width: float, blocks: Sequence[int] | None, stem: str, output_stride: int) -> None:
    """Refuses arguments that no residual network can be built from."""
    if depth not in BLOCKS:
        raise Mistake(f"depth must be one of {sorted(BLOCKS)}. Received depth={depth}. Pass one of them and blocks=.")
    if blocks is not None and (not 1 <= len(blocks) <= 4 or min(blocks) < 1):
        raise Mistake(
            f"blocks must be up to four positive counts. Received blocks={blocks}. Pass for example (3, 4, 6, 3)."
        )
    if stem not in ("imagenet", "small"):
        raise Mistake(f"stem must be 'imagenet' or 'small'. Received stem={stem!r}. Pass one of the two.")
    if output_stride not in (8, 16, 32):
        raise Mistake(f"output_stride must be 8, 16 or 32. Received output_stride={output_stride}. Pass one of them.")
    if int(64 * width) < 1:
        raise Mistake(f"width must leave a channel in the stem. Received width={width}. Pass at least 1/64.")
