"""Windows of the backbones: convolutions and pooling, padded as the authors pad, and how their weights start."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_evonorm.mistakes import Mistake

PADDINGS = ("symmetric", "same")


def convolve(
    x: tf.Tensor,
    filters: int,
    kernel: int = 1,
    stride: int = 1,
    dilation: int = 1,
    *,
    padding: str = "symmetric",
    initializer: tf.keras.initializers.Initializer | None = None,
    regularizer: tf.keras.regularizers.Regularizer | None = None,
    name: str,
) -> tf.Tensor:
    """Convolves without bias.

    Args:
        x: symbolic tensor [B, H, W, C].
        filters: number of output channels.
        kernel: odd side of the window, pixels.
        stride: pixels between two outputs.
        dilation: pixels between two taps of the window.
        padding: "symmetric", (kernel - 1) / 2 * dilation zeros on every side whatever the stride, as PyTorch and the
            authors' ResNets do; or "same", TensorFlow's, which pads less on the top and left when it strides over an
            even size. Without stride they are one.
        initializer: Keras initializer of the weights; None is normal with deviation sqrt(2 / (kernel**2 filters)).
        regularizer: Keras regularizer of the weights.
        name: name of the convolution layer.

    Returns:
        Symbolic tensor [B, ceil(H / stride), ceil(W / stride), filters].

    Raises:
        Mistake: an unknown padding.
    """
    _check_padding(padding)
    if padding == "symmetric" and stride > 1 and kernel > 1:
        x = tf.keras.layers.ZeroPadding2D(dilation * (kernel // 2), name=f"{name}.pad")(x)
        padding = "valid"
    else:
        padding = "same"
    return tf.keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        dilation_rate=dilation,
        padding=padding,
        use_bias=False,
        kernel_initializer=fresh_initializer(initializer),
        kernel_regularizer=regularizer,
        name=name,
    )(x)


def max_pool(x: tf.Tensor, padding: str = "symmetric", name: str | None = None) -> tf.Tensor:
    """Takes the largest value of every 3x3 window, every second pixel: [B, H, W, C] -> half the size, rounded up."""
    _check_padding(padding)
    if padding == "same":
        return tf.keras.layers.MaxPool2D(3, 2, padding="same", name=name)(x)
    return SymmetricMaxPool(3, 2, name=name)(x)


def fresh_initializer(initializer: tf.keras.initializers.Initializer | None) -> tf.keras.initializers.Initializer:
    """Copies an initializer, so that no two layers draw the same numbers; None is He's normal over the outputs."""
    if initializer is None:
        return tf.keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    initializer = tf.keras.initializers.get(initializer)
    return type(initializer).from_config(initializer.get_config())


def _check_padding(padding):
    if padding not in PADDINGS:
        raise Mistake(f"padding must be one of {PADDINGS}. Received padding={padding!r}. Pass one of the two.")


@tf.keras.utils.register_keras_serializable(package="tf_evonorm")
class SymmetricMaxPool(tf.keras.layers.Layer):
    """Largest value of every window, windows laid alike on both sides; what lies outside the map never wins.

    Args:
        window: odd side of the window, pixels.
        stride: pixels between two windows.

    Input shape: [B, H, W, C].
    Output shape: [B, ceil(H / stride), ceil(W / stride), C].
    """

    def __init__(
        self, window: int = 3, stride: int = 2, trainable: bool = True, dtype: Any = None, name: str | None = None
    ):
        super().__init__(trainable=trainable, dtype=dtype, name=name)
        self.window = window
        self.stride = stride

    def call(self, inputs):
        border = [self.window // 2] * 2
        padded = tf.pad(inputs, [[0, 0], border, border, [0, 0]], constant_values=inputs.dtype.min)
        return tf.nn.max_pool2d(padded, self.window, self.stride, "VALID")

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        cells = [None if side is None else -(-side // self.stride) for side in (height, width)]
        return tf.TensorShape([batch, *cells, channels])

    def get_config(self):
        return {**super().get_config(), "window": self.window, "stride": self.stride}
