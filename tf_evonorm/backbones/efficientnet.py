"""EfficientNet B0 to B7: inverted residual blocks with squeeze-and-excite, scaled in width and depth together."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_evonorm.backbones.backbone import HeadedBackbone
from tf_evonorm.backbones.inverted_residual import Stage, inverted_residual_network, round_channels
from tf_evonorm.layers.baselines import BatchNormAct
from tf_evonorm.mistakes import Mistake

B0 = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3, "2"),
    Stage(6, 40, 2, 2, 5, "3"),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5, "4"),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3, "5"),
)
SCALES = {  # width, depth
    "b0": (1.0, 1.0),
    "b1": (1.0, 1.1),
    "b2": (1.1, 1.2),
    "b3": (1.2, 1.4),
    "b4": (1.4, 1.8),
    "b5": (1.6, 2.2),
    "b6": (1.8, 2.6),
    "b7": (2.0, 3.1),
}


def efficientnet(
    variant: str = "b0",
    norm_act: Callable[..., tf.keras.layers.Layer] | None = None,
    *,
    input_size: Sequence[int | None] = (None, None, 3),
    width: float = 1.0,
    stem: str = "imagenet",
    stochastic_depth: float = 0.2,
    seed: int | None = None,
    kernel_initializer: str | tf.keras.initializers.Initializer | None = None,
    kernel_regularizer: tf.keras.regularizers.Regularizer | None = None,
    name: str | None = None,
) -> HeadedBackbone:
    """Builds an EfficientNet.

    Args:
        variant: "b0" to "b7".
        norm_act: callable returning a fresh layer, called as `norm_act(apply_act=..., name=...)`; linear bottlenecks
            have no activation. None is BatchNorm (epsilon 1e-3, momentum 0.99) and swish. Squeeze-and-excite keeps its
            own swish and sigmoid.
        input_size: (height, width, channels) of the images, pixels; None where unknown.
        width: factor of all channel counts beside the variant's own, rounded to multiples of 8.
        stem: "imagenet"; or "small" for images of about 32 pixels: the first two strides are 1.
        stochastic_depth: share of dropped branches at the end of the network, growing linearly from 0.
        seed: int that fixes which branches are dropped; None draws one.
        kernel_initializer: Keras initializer of convolution weights; None is normal with deviation
            sqrt(2 / (kernel**2 filters)).
        kernel_regularizer: Keras regularizer of all convolution weights.
        name: name of the model.

    Returns:
        A `HeadedBackbone` from [B, H, W, 3] to {"2": [B, H/4, W/4, 24], "3": [.., 40], "4": [.., 112],
        "5": [B, H/32, W/32, 320], "6": [B, H/32, W/32, 1280]} for b0, sizes rounded up; "6" is the classifier's.

    Raises:
        Mistake: an unknown variant or stem.

    Source: Tan and Le 2019, table 1 and compound scaling. Equals `tf.keras.applications.EfficientNetB*` behind its
        rescaling and normalization of pixels, which belong to the data here.
    """
    if variant not in SCALES:
        raise Mistake(f"variant must be one of {list(SCALES)}. Received variant={variant!r}. Pass one of them.")
    width_scale, depth_scale = width * SCALES[variant][0], SCALES[variant][1]
    stages = [
        stage._replace(
            channels=round_channels(stage.channels * width_scale), repeats=math.ceil(stage.repeats * depth_scale)
        )
        for stage in B0
    ]
    return inverted_residual_network(
        stages,
        norm_act=norm_act or functools.partial(BatchNormAct, activation="swish", momentum=0.99, epsilon=1e-3),
        input_size=input_size,
        stem=stem,
        stem_channels=round_channels(32 * width_scale),
        head_channels=round_channels(1280 * width_scale),
        squeeze=0.25,
        squeeze_activation="swish",
        stochastic_depth=stochastic_depth,
        seed=seed,
        kernel_initializer=kernel_initializer,
        kernel_regularizer=kernel_regularizer,
        name=name or f"efficientnet_{variant}",
    )
