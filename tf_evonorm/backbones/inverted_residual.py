"""Networks of inverted residual blocks, the one body of MobileNetV2, MnasNet and EfficientNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_evonorm.backbones.backbone import HeadedBackbone
from tf_evonorm.backbones.convolution import convolve, fresh_initializer
from tf_evonorm.mistakes import Mistake


class Stage(NamedTuple):
    """Blocks that share a size: the first strides and widens, the others repeat it."""

    expansion: int  # inner channels over input channels
    channels: int  # of the output
    repeats: int
    stride: int  # of the first block
    kernel: int  # side of the depthwise window, pixels
    level: str | None = None  # name of this stage's output as a level


def round_channels(channels: float) -> int:
    """Nearest multiple of 8 (at least 8) that loses no more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def inverted_residual_network(
    stages: Sequence[Stage],
    *,
    norm_act: Callable[..., tf.keras.layers.Layer],
    input_size: Sequence[int | None],
    stem: str,
    stem_channels: int,
    head_channels: int,
    squeeze: float = 0.0,
    squeeze_activation: str = "relu",
    stochastic_depth: float = 0.0,
    seed: int | None = None,
    kernel_initializer: str | tf.keras.initializers.Initializer | None = None,
    kernel_regularizer: tf.keras.regularizers.Regularizer | None = None,
    name: str,
) -> HeadedBackbone:
    """Builds stem, stages and head.

    Args:
        stages: sequence of `Stage`, in the order they run; channels are taken as they are.
        norm_act: callable returning a fresh layer, called as `norm_act(apply_act=..., name=...)`: complete after the
            stem, expansions, depthwise convolutions and the head, affine or linear after projections.
        input_size: (height, width, channels) of the images, pixels; None where unknown.
        stem: "imagenet"; or "small" for images of about 32 pixels: the first two strides are 1.
        stem_channels: channels of the first convolution.
        head_channels: channels of the last one.
        squeeze: channels of the squeeze-and-excite bottleneck over the block's input channels; 0 leaves it out.
        squeeze_activation: Keras activation inside squeeze-and-excite.
        stochastic_depth: share of dropped branches at the end of the network, growing linearly from 0.
        seed: int that fixes which branches are dropped; None draws one.
        kernel_initializer: Keras initializer of all convolution weights.
        kernel_regularizer: Keras regularizer of all convolution weights, depthwise ones included.
        name: name of the model.

    Returns:
        A `HeadedBackbone` from [B, H, W, 3] to the levels that the stages name, and "6", the head at the size of the
        last stage.

    Raises:
        Mistake: an unknown stem.
    """
    if stem not in ("imagenet", "small"):
        raise Mistake(f"stem must be 'imagenet' or 'small'. Received stem={stem!r}. Pass one of the two.")
    free_strides = 2 if stem == "small" else 0  # strides that are not taken
    block = _InvertedResidual(norm_act, squeeze, squeeze_activation, kernel_initializer, kernel_regularizer)

    images = tf.keras.Input(input_size, name="images")
    x = block.convolve(images, stem_channels, 3, 1 if free_strides else 2, name="stem.conv")
    x = norm_act(name="stem.norm")(x)
    free_strides -= 1

    levels, done, total = {}, 0, sum(stage.repeats for stage in stages)
    for number, stage in enumerate(stages, start=1):
        stride = stage.stride
        if stride > 1 and free_strides > 0:
            stride, free_strides = 1, free_strides - 1
        for repeat in range(stage.repeats):
            drop = stochastic_depth * done / total
            label = f"stage{number}.{repeat}"
            x = block(x, stage, stride if repeat == 0 else 1, drop, None if seed is None else seed + done, label)
            done += 1
        if stage.level:
            levels[stage.level] = x
    x = block.convolve(x, head_channels, name="head.conv")
    levels["6"] = norm_act(name="head.norm")(x)
    return HeadedBackbone(inputs=images, outputs=levels, name=name)


class _InvertedResidual:
    """Makes blocks: expand by a 1x1, filter each channel, squeeze and excite, project by a 1x1, add the input."""

    def __init__(self, norm_act, squeeze, squeeze_activation, initializer, regularizer):
        self.norm_act = norm_act
        self.squeeze = squeeze
        self.squeeze_activation = squeeze_activation
        self.initializer = initializer
        self.regularizer = regularizer

    def __call__(self, x, stage, stride, drop, seed, name):
        inputs, channels = x, x.shape[-1]
        if stage.expansion != 1:
            x = self.convolve(x, channels * stage.expansion, name=f"{name}.expand.conv")
            x = self.norm_act(name=f"{name}.expand.norm")(x)
        x = tf.keras.layers.DepthwiseConv2D(
            stage.kernel,
            strides=stride,
            padding="same",
            use_bias=False,
            depthwise_initializer=fresh_initializer(self.initializer),
            depthwise_regularizer=self.regularizer,
            name=f"{name}.depthwise.conv",
        )(x)
        x = self.norm_act(name=f"{name}.depthwise.norm")(x)
        if self.squeeze:
            x = self._squeeze_excite(x, max(1, int(channels * self.squeeze)), name)
        x = self.convolve(x, stage.channels, name=f"{name}.project.conv")
        x = self.norm_act(apply_act=False, name=f"{name}.project.norm")(x)
        if stride > 1 or channels != stage.channels:
            return x
        if drop:
            x = tf.keras.layers.Dropout(drop, noise_shape=(None, 1, 1, 1), seed=seed, name=f"{name}.drop")(x)
        return tf.keras.layers.Add(name=f"{name}.add")([x, inputs])

    def convolve(self, x, filters, kernel=1, stride=1, *, name):
        return convolve(
            x,
            filters,
            kernel,
            stride,
            padding="same",
            initializer=self.initializer,
            regularizer=self.regularizer,
            name=name,
        )

    def _squeeze_excite(self, x, bottleneck, name):
        """Scales each channel by a gate that sees the mean of all of them."""
        settings = dict(kernel_regularizer=self.regularizer, padding="same")
        gate = tf.keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.squeeze")(x)
        gate = tf.keras.layers.Conv2D(
            bottleneck,
            1,
            activation=self.squeeze_activation,
            kernel_initializer=fresh_initializer(self.initializer),
            name=f"{name}.squeeze.reduce",
            **settings,
        )(gate)
        gate = tf.keras.layers.Conv2D(
            x.shape[-1],
            1,
            activation="sigmoid",
            kernel_initializer=fresh_initializer(self.initializer),
            name=f"{name}.squeeze.expand",
            **settings,
        )(gate)
        return tf.keras.layers.Multiply(name=f"{name}.squeeze.excite")([x, gate])
