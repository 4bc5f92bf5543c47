"""Residual blocks of ResNet v1.5 and SpineNet: normalization after every convolution, activation after the sum.

Every block takes `convolve`, the convolution with its padding and weights settled, and `norm_act`, the callable that
makes a normalization with its activation. The names of layers inside are those of PyTorch's ResNet.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def basic_block(
    x: tf.Tensor,
    filters: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    convolve: Callable[..., tf.Tensor],
    norm_act: Callable[..., tf.keras.layers.Layer],
    gamma: str | tf.keras.initializers.Initializer = "ones",
    activation: str = "relu",
    name: str,
) -> tf.Tensor:
    """Two 3x3 convolutions beside a shortcut: [B, H, W, C] -> [B, H/stride, W/stride, filters]."""
    branch = convolve(x, filters, 3, stride, dilation, name=f"{name}.conv1")
    branch = norm_act(name=f"{name}.bn1")(branch)
    branch = convolve(branch, filters, 3, 1, dilation, name=f"{name}.conv2")
    branch = norm_act(apply_act=False, gamma_initializer=gamma, name=f"{name}.bn2")(branch)
    return _join(x, branch, stride, convolve, norm_act, activation, name)


def bottleneck(
    x: tf.Tensor,
    filters: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    convolve: Callable[..., tf.Tensor],
    norm_act: Callable[..., tf.keras.layers.Layer],
    gamma: str | tf.keras.initializers.Initializer = "ones",
    activation: str = "relu",
    name: str,
) -> tf.Tensor:
    """1x1, 3x3 (strided) and 1x1 convolutions beside a shortcut: [B, H, W, C] -> [B, H/stride, W/stride, 4 filters]."""
    branch = convolve(x, filters, name=f"{name}.conv1")
    branch = norm_act(name=f"{name}.bn1")(branch)
    branch = convolve(branch, filters, 3, stride, dilation, name=f"{name}.conv2")
    branch = norm_act(name=f"{name}.bn2")(branch)
    branch = convolve(branch, 4 * filters, name=f"{name}.conv3")
    branch = norm_act(apply_act=False, gamma_initializer=gamma, name=f"{name}.bn3")(branch)
    return _join(x, branch, stride, convolve, norm_act, activation, name)


def _join(x, branch, stride, convolve, norm_act, activation, name):
    """Adds the shortcut, projected where its shape differs, and activates the sum."""
    if stride > 1 or x.shape[-1] != branch.shape[-1]:
        x = convolve(x, branch.shape[-1], 1, stride, name=f"{name}.downsample.0")
        x = norm_act(apply_act=False, name=f"{name}.downsample.1")(x)
    total = tf.keras.layers.Add(name=f"{name}.add")([branch, x])
    return tf.keras.layers.Activation(activation, name=f"{name}.act")(total)
