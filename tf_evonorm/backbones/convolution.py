"""Convolution and pooling windows of the residual networks: padded alike on both sides, whatever the stride."""

import tensorflow as tf


def convolve(x, filters, kernel, stride=1, dilation=1, kernel_regularizer=None, name=None):
    """Convolves without bias, padded by (kernel - 1) / 2 * dilation on every side.

    Keras' "same" pads less on the top and left when it strides; the authors' networks do not, so a strided convolution
    pads first. Weights start normal with standard deviation sqrt(2 / (kernel * kernel * filters)).

    Args:
        x: symbolic tensor [B, H, W, C].
        filters: number of output channels.
        kernel: odd side of the window, pixels.
        stride: pixels between two outputs.
        dilation: pixels between two taps of the window.
        kernel_regularizer: Keras regularizer of the weights.
        name: name of the convolution layer.

    Returns:
        Symbolic tensor [B, ceil(H / stride), ceil(W / stride), filters].
    """
    padding = "same"
    if stride > 1 and kernel > 1:
        padding = "valid"
        x = tf.keras.layers.ZeroPadding2D(dilation * (kernel // 2), name=f"{name}.pad")(x)
    return tf.keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        dilation_rate=dilation,
        padding=padding,
        use_bias=False,
        kernel_initializer=tf.keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        kernel_regularizer=kernel_regularizer,
        name=name,
    )(x)


@tf.keras.utils.register_keras_serializable(package="tf_evonorm")
class MaxPool(tf.keras.layers.Layer):
    """Largest value of every window, windows laid alike on both sides; what lies outside the map never wins.

    Args:
        window: odd side of the window, pixels.
        stride: pixels between two windows.

    Input shape: [B, H, W, C].
    Output shape: [B, ceil(H / stride), ceil(W / stride), C].
    """

    def __init__(self, window=3, stride=2, **kwargs):
        super().__init__(**kwargs)
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
