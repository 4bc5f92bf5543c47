"""SpineNet: a residual network whose blocks are permuted over scales and joined across them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_evonorm.backbones import convolution
from tf_evonorm.backbones.backbone import Backbone
from tf_evonorm.backbones.residual_block import basic_block, bottleneck
from tf_evonorm.layers.baselines import BatchNormAct
from tf_evonorm.mistakes import Mistake


class Block(NamedTuple):
    """One permuted block: where it lives, what it is, and which two earlier blocks it joins."""

    level: int
    block: Callable
    parents: tuple[int, ...]  # two; 0 and 1 are the blocks of the stem
    is_output: bool = False


class Scale(NamedTuple):
    """What makes a variant larger."""

    repeats: int  # of every block
    filters: float  # factor of block channels
    resample: float  # inner channels of a cross-scale connection over those of its source
    output_channels: int


BLOCKS = (
    Block(2, bottleneck, (0, 1)),
    Block(4, basic_block, (0, 1)),
    Block(3, bottleneck, (2, 3)),
    Block(4, bottleneck, (2, 4)),
    Block(6, basic_block, (3, 5)),
    Block(4, bottleneck, (3, 5)),
    Block(5, basic_block, (6, 7)),
    Block(7, basic_block, (6, 8)),
    Block(5, bottleneck, (8, 9)),
    Block(5, bottleneck, (8, 10)),
    Block(4, bottleneck, (5, 10), True),
    Block(3, bottleneck, (4, 10), True),
    Block(5, bottleneck, (7, 12), True),
    Block(7, bottleneck, (5, 14), True),
    Block(6, bottleneck, (12, 14), True),
    Block(2, bottleneck, (2, 13), True),
)
FILTERS = {2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}
SCALES = {
    "49S": Scale(1, 0.65, 0.5, 128),
    "49": Scale(1, 1.0, 0.5, 256),
    "96": Scale(2, 1.0, 0.5, 256),
    "143": Scale(3, 1.0, 1.0, 256),
    "143L": Scale(3, 1.3, 1.0, 256),
    "190": Scale(4, 1.3, 1.0, 512),
}


def spinenet(
    variant: str = "49",
    norm_act: Callable[..., tf.keras.layers.Layer] | None = None,
    *,
    input_size: Sequence[int | None] = (None, None, 3),
    width: float = 1.0,
    stem: str = "imagenet",
    min_level: int = 3,
    max_level: int = 7,
    activation: str = "relu",
    kernel_initializer: str | tf.keras.initializers.Initializer | None = "variance_scaling",
    kernel_regularizer: tf.keras.regularizers.Regularizer | None = None,
    name: str | None = None,
) -> Backbone:
    """Builds a SpineNet.

    Args:
        variant: "49S", "49", "96", "143", "143L" or "190".
        norm_act: callable returning a fresh layer, called as `norm_act(apply_act=..., name=...)`. None is BatchNorm
            (epsilon 1e-3, momentum 0.99) and ReLU. Without activation at the end of branches, of shortcuts and of
            cross-scale connections, where a plain `activation` follows the sum.
        input_size: (height, width, channels) of the images, pixels, multiples of 128 (32 with the "small" stem); None
            where unknown.
        width: factor of all channel counts, may be a fraction; each product is rounded down.
        stem: "imagenet", a 7x7 convolution of stride 2 and a max-pool; or "small", one 3x3 convolution of stride 1,
            which makes every level four times larger.
        min_level: lowest level of the output, at least 2.
        max_level: highest level of the output, at most 7.
        activation: Keras activation of sums.
        kernel_initializer: Keras initializer of convolution weights.
        kernel_regularizer: Keras regularizer of the convolution weights.
        name: name of the model.

    Returns:
        A `Backbone` from [B, H, W, 3] to {str(l): [B, H / 2**l, W / 2**l, 256]} for the levels asked; 128 channels for
        "49S", 512 for "190".

    Raises:
        Mistake: an unknown variant or stem, levels out of range, or a size that the coarsest level does not divide.

    Source: Du et al. 2020 (SpineNet), figure 3b and table 1. Equals Model Garden's `SpineNet` for known sizes. With
        unknown sizes Model Garden drops the joins of blocks that nothing else reads; here they stay.
    """
    _check(variant, stem, min_level, max_level, input_size)
    scale = SCALES[variant]
    norm_act = norm_act or functools.partial(BatchNormAct, momentum=0.99, epsilon=1e-3)
    convolve = functools.partial(
        convolution.convolve, padding="same", initializer=kernel_initializer, regularizer=kernel_regularizer
    )
    group = functools.partial(
        _group, repeats=scale.repeats, convolve=convolve, norm_act=norm_act, activation=activation
    )
    filters = {level: int(count * scale.filters * width) for level, count in FILTERS.items()}

    images = tf.keras.Input(input_size, name="images")
    if stem == "imagenet":
        x = norm_act(name="stem.norm")(convolve(images, int(64 * width), 7, 2, name="stem.conv"))
        x = convolution.max_pool(x, "same", name="stem.pool")
    else:
        x = norm_act(name="stem.norm")(convolve(images, int(64 * width), 3, name="stem.conv"))
    first = group(x, filters[2], bottleneck, name="stem.0")
    nodes = [first, group(first, filters[2], bottleneck, name="stem.1")]
    resample = functools.partial(_resample, convolve=convolve, norm_act=norm_act)
    endpoints = _scale_permuted(nodes, filters, scale.resample, group, resample, activation)
    levels = {}
    for level in range(min_level, max_level + 1):
        x = convolve(endpoints[level], int(scale.output_channels * width), name=f"level{level}.conv")
        levels[str(level)] = norm_act(name=f"level{level}.norm")(x)
    return Backbone(inputs=images, outputs=levels, name=name or f"spinenet{variant}")


def _scale_permuted(nodes, filters, resampling, group, resample, activation):
    """The blocks of the learned order on those of the stem: level -> block that is an output of this level."""
    nodes, specs, unread, endpoints = list(nodes), [Block(2, bottleneck, ())] * 2, {0, 1}, {}
    for number, spec in enumerate(BLOCKS):
        inner = filters[spec.level]
        channels = inner * (4 if spec.block is bottleneck else 1)
        joined = []
        for parent in spec.parents:
            source = nodes[parent].shape[-1] // (4 if specs[parent].block is bottleneck else 1)
            levels_up, inside = specs[parent].level - spec.level, int(source * resampling)
            joined.append(resample(nodes[parent], levels_up, inside, channels, name=f"block{number}.from{parent}"))
            unread.discard(parent)
        if spec.is_output:  # an earlier block that nothing reads joins the output of its own size
            same = [i for i in sorted(unread) if specs[i].level == spec.level and nodes[i].shape[-1] == channels]
            joined += [nodes[i] for i in same]
            unread.difference_update(same)
        total = tf.keras.layers.Add(name=f"block{number}.join")(joined)
        total = tf.keras.layers.Activation(activation, name=f"block{number}.join_act")(total)
        unread.add(len(nodes))
        nodes.append(group(total, inner, spec.block, name=f"block{number}"))
        specs.append(spec)
        if spec.is_output:
            endpoints[spec.level] = nodes[-1]
    return endpoints


def _group(x, filters, block, *, repeats, convolve, norm_act, activation, name):
    """Repeats a residual block."""
    for repeat in range(repeats):
        x = block(x, filters, convolve=convolve, norm_act=norm_act, activation=activation, name=f"{name}.{repeat}")
    return x


def _resample(x, levels_up, inner, channels, *, convolve, norm_act, name):
    """Brings a block's output to another level, `levels_up` finer (coarser if negative), and another channel count."""
    x = norm_act(name=f"{name}.norm1")(convolve(x, inner, name=f"{name}.conv1"))
    if levels_up > 0:
        x = tf.keras.layers.UpSampling2D(2**levels_up, interpolation="nearest", name=f"{name}.upsample")(x)
    elif levels_up < 0:
        x = norm_act(name=f"{name}.norm2")(convolve(x, inner, 3, 2, name=f"{name}.conv2"))
        for halving in range(-levels_up - 1):
            x = convolution.max_pool(x, "same", name=f"{name}.pool{halving}")
    return norm_act(apply_act=False, name=f"{name}.norm3")(convolve(x, channels, name=f"{name}.conv3"))


def _check(variant, stem, min_level, max_level, input_size):
    """Refuses arguments that no SpineNet can be built from."""
    if variant not in SCALES:
        raise Mistake(f"variant must be one of {list(SCALES)}. Received variant={variant!r}. Pass one of them.")
    if stem not in ("imagenet", "small"):
        raise Mistake(f"stem must be 'imagenet' or 'small'. Received stem={stem!r}. Pass one of the two.")
    if not 2 <= min_level <= max_level <= 7:
        raise Mistake(
            f"levels must satisfy 2 <= min_level <= max_level <= 7. Received {min_level} and {max_level}. "
            "Pass for example 3 and 7."
        )
    divisor = 128 if stem == "imagenet" else 32
    if any(side is not None and side % divisor for side in input_size[:2]):
        raise Mistake(
            f"the sides of the images must be multiples of {divisor}. Received input_size={tuple(input_size)}. "
            "Pad or resize the images."
        )
