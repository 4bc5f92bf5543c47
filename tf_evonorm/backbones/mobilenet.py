"""MobileNetV2 and MnasNet-B1: mobile networks of inverted residual blocks without squeeze-and-excite."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_evonorm.backbones.backbone import HeadedBackbone
from tf_evonorm.backbones.inverted_residual import Stage, inverted_residual_network, round_channels
from tf_evonorm.layers.baselines import BatchNormAct

MOBILENETV2 = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3, "2"),
    Stage(6, 32, 3, 2, 3, "3"),
    Stage(6, 64, 4, 2, 3),
    Stage(6, 96, 3, 1, 3, "4"),
    Stage(6, 160, 3, 2, 3),
    Stage(6, 320, 1, 1, 3, "5"),
)
MNASNET_B1 = (
    Stage(1, 16, 1, 1, 3),
    Stage(3, 24, 3, 2, 3, "2"),
    Stage(3, 40, 3, 2, 5, "3"),
    Stage(6, 80, 3, 2, 5),
    Stage(6, 96, 2, 1, 3, "4"),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3, "5"),
)


def mobilenetv2(
    norm_act: Callable[..., tf.keras.layers.Layer] | None = None,
    *,
    input_size: Sequence[int | None] = (None, None, 3),
    width: float = 1.0,
    stem: str = "imagenet",
    kernel_initializer: str | tf.keras.initializers.Initializer | None = None,
    kernel_regularizer: tf.keras.regularizers.Regularizer | None = None,
    name: str = "mobilenetv2",
) -> HeadedBackbone:
    """Builds MobileNetV2.

    Args:
        norm_act: callable returning a fresh layer, called as `norm_act(apply_act=..., name=...)`; linear bottlenecks
            have no activation. None is BatchNorm (epsilon 1e-3, momentum 0.99) and ReLU6.
        input_size: (height, width, channels) of the images, pixels; None where unknown.
        width: factor of all channel counts, rounded to multiples of 8; the head never shrinks below 1280.
        stem: "imagenet"; or "small" for images of about 32 pixels: the first two strides are 1.
        kernel_initializer: Keras initializer of convolution weights; None is normal with deviation
            sqrt(2 / (kernel**2 filters)).
        kernel_regularizer: Keras regularizer of all convolution weights.
        name: name of the model.

    Returns:
        A `HeadedBackbone` from [B, H, W, 3] to {"2": [B, H/4, W/4, 24], "3": [.., 32], "4": [.., 96],
        "5": [B, H/32, W/32, 320], "6": [B, H/32, W/32, 1280]} at width 1, sizes rounded up; "6" is the classifier's.

    Raises:
        Mistake: an unknown stem.

    Source: Sandler et al. 2018, table 2. Equals `tf.keras.applications.MobileNetV2`, whose BatchNorm momentum is 0.999.
    """
    return _mobile(
        MOBILENETV2,
        norm_act or functools.partial(BatchNormAct, activation="relu6", momentum=0.99, epsilon=1e-3),
        input_size=input_size,
        width=width,
        stem=stem,
        kernel_initializer=kernel_initializer,
        kernel_regularizer=kernel_regularizer,
        name=name,
    )


def mnasnet(
    norm_act: Callable[..., tf.keras.layers.Layer] | None = None,
    *,
    input_size: Sequence[int | None] = (None, None, 3),
    width: float = 1.0,
    stem: str = "imagenet",
    kernel_initializer: str | tf.keras.initializers.Initializer | None = None,
    kernel_regularizer: tf.keras.regularizers.Regularizer | None = None,
    name: str = "mnasnet_b1",
) -> HeadedBackbone:
    """Builds MnasNet-B1, the searched mobile network without squeeze-and-excite.

    Args:
        norm_act: callable returning a fresh layer, called as `norm_act(apply_act=..., name=...)`; linear bottlenecks
            have no activation. None is BatchNorm (epsilon 1e-3, momentum 0.99) and ReLU.
        input_size: (height, width, channels) of the images, pixels; None where unknown.
        width: factor of all channel counts, rounded to multiples of 8; the head never shrinks below 1280.
        stem: "imagenet"; or "small" for images of about 32 pixels: the first two strides are 1.
        kernel_initializer: Keras initializer of convolution weights; None is normal with deviation
            sqrt(2 / (kernel**2 filters)).
        kernel_regularizer: Keras regularizer of all convolution weights.
        name: name of the model.

    Returns:
        A `HeadedBackbone` from [B, H, W, 3] to {"2": [B, H/4, W/4, 24], "3": [.., 40], "4": [.., 96],
        "5": [B, H/32, W/32, 320], "6": [B, H/32, W/32, 1280]} at width 1, sizes rounded up; "6" is the classifier's.

    Raises:
        Mistake: an unknown stem.

    Source: Tan et al. 2019 (MnasNet), figure 7a of the first version, as in tensorflow/tpu models/official/mnasnet.
    """
    return _mobile(
        MNASNET_B1,
        norm_act or functools.partial(BatchNormAct, momentum=0.99, epsilon=1e-3),
        input_size=input_size,
        width=width,
        stem=stem,
        kernel_initializer=kernel_initializer,
        kernel_regularizer=kernel_regularizer,
        name=name,
    )


def _mobile(stages, norm_act, *, width, **settings):
    """Scales the channels and builds."""
    return inverted_residual_network(
        [stage._replace(channels=round_channels(stage.channels * width)) for stage in stages],
        norm_act=norm_act,
        stem_channels=round_channels(32 * width),
        head_channels=round_channels(1280 * max(1.0, width)),
        **settings,
    )
