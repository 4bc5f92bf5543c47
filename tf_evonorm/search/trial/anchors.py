"""Anchors: the small networks that a candidate is tried in."""

from __future__ import annotations

import functools
from typing import Any, Callable, NamedTuple

import tensorflow as tf

from tf_evonorm import backbones
from tf_evonorm.backbones.inverted_residual import Stage, inverted_residual_network

NormAct = Callable[..., tf.keras.layers.Layer]  # returns a new layer at each call


class Anchor(NamedTuple):
    """An architecture.

    Attributes:
      name: what its scores are called.
      backbone: norm_act -> model, [B, H, W, 3] -> dict of levels, for any H and W.
    """

    name: str
    backbone: Callable[[NormAct], tf.keras.Model]


def paper_anchors(
    resnet_width: float = 0.25, mobilenet_width: float = 0.5, efficientnet_width: float = 0.5
) -> tuple[Anchor, ...]:
    """Builds the paper's anchors: pre-activation ResNet-50, MobileNetV2 and EfficientNet-B0.

    The first two strides of each are 1.

    Args:
      resnet_width, mobilenet_width, efficientnet_width: multipliers of the number of channels.

    Source: EvoNorm paper, section 4. The three widths are from memory of its appendix and could not be confirmed;
      stochastic depth is off.
    """
    return (
        Anchor("resnet", functools.partial(backbones.preactivation_resnet, 50, width=resnet_width, stem="small")),
        Anchor("mobilenet", functools.partial(backbones.mobilenetv2, width=mobilenet_width, stem="small")),
        Anchor(
            "efficientnet",
            functools.partial(_efficientnet, width=efficientnet_width, stem="small", stochastic_depth=0.0),
        ),
    )


def small_anchors(width: float = 1.0) -> tuple[Anchor, ...]:
    """Builds three networks of the same kinds with about 10 to 20 thousand weights each, for two cores.

    The ResNet has 3 basic blocks with 8, 16 and 32 channels; the mobile networks have 3 inverted residual blocks
    each, with 3x3 kernels, or with 5x5 kernels and squeeze-and-excite.

    Args:
      width: multiplier of the number of channels.
    """
    mobile = functools.partial(_small_mobile, width=width)
    return (
        Anchor("resnet", functools.partial(_small_resnet, width=width)),
        Anchor("mobilenet", functools.partial(mobile, kernel=3, squeeze=0.0, name="mobilenet_small")),
        Anchor("efficientnet", functools.partial(mobile, kernel=5, squeeze=0.25, name="efficientnet_small")),
    )


def _efficientnet(norm_act: NormAct, **settings: Any) -> tf.keras.Model:
    return backbones.efficientnet("b0", norm_act, **settings)


def _small_resnet(norm_act: NormAct, width: float) -> tf.keras.Model:
    return backbones.preactivation_resnet(18, norm_act, blocks=(1, 1, 1), width=width / 8, stem="small")


def _small_mobile(norm_act: NormAct, width: float, kernel: int, squeeze: float, name: str) -> tf.keras.Model:
    stem, second, third, head = (int(width * channels) for channels in (16, 24, 32, 64))
    stages = [
        Stage(1, stem, 1, 1, kernel),
        Stage(3, second, 2, 2, kernel),
        Stage(3, third, 1, 2, kernel, "4"),
    ]
    return inverted_residual_network(
        stages,
        norm_act=norm_act,
        input_size=(None, None, 3),
        stem="imagenet",
        stem_channels=stem,
        head_channels=head,
        squeeze=squeeze,
        squeeze_activation="swish",
        name=name,
    )
