"""The Keras layers of the pretext task: projection head and pixel propagation."""

from __future__ import annotations

from typing import Any, Optional

import tensorflow as tf

from tf_evonorm import functional
from tf_evonorm.keras_generation import KERAS_2
from tf_evonorm.layers import BatchNormAct
from tf_evonorm.mistakes import Mistake
from tf_pixpro.pretext.pairwise import check_block, rowwise


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class BatchNorm(BatchNormAct):
    """Batch normalization under the name that `.keras` files of version 0.1 give it; new models take `BatchNormAct`."""

    @classmethod
    def from_config(cls, config: dict) -> BatchNorm:
        return cls(**{"apply_act": False, **config})


def unit(features: tf.Tensor, axis: int = -1) -> tf.Tensor:
    """Vectors divided by their length, float32 (float64 stays), safe at zero: x / max(|x|, 1e-12)."""
    return tf.math.l2_normalize(functional.raised(tf.convert_to_tensor(features)), axis=axis, epsilon=1e-24)


def pointwise(filters: int, fan_in: int, name: str, dtype: Any) -> tf.keras.layers.Conv2D:
    """A 1x1 convolution with bias, both uniform in +-1 / sqrt(fan_in) (the default of the authors' framework)."""
    bound = fan_in**-0.5
    initializer = tf.keras.initializers.RandomUniform(-bound, bound)
    bias = tf.keras.initializers.RandomUniform(-bound, bound)
    start = {"kernel_initializer": initializer, "bias_initializer": bias}
    return tf.keras.layers.Conv2D(filters, 1, name=name, dtype=dtype, **start)


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class ProjectionHead(tf.keras.layers.Layer):
    """Two 1x1 convolutions with batch normalization and ReLU between them.

    Args:
      hidden: channels between the convolutions.
      features: channels of the result, D.
      synchronized: batch statistics over all replicas.

    Input shape: [B, h, w, C]. Output shape: [B, h, w, D].

    Raises:
      Mistake: if hidden or features is not positive, or the input's channels are unknown when the layer is built.

    Source: PixPro section 3.2 and the authors' `MLP2d`. Hidden is 4096 in their code; readers of the paper quote 2048.
      Weights and biases start uniform in +-1 / sqrt(input channels), their framework's default. The authors' head takes
      2048 channels only.
    """

    def __init__(
        self,
        hidden: int = 4096,
        features: int = 256,
        synchronized: bool = True,
        name: Optional[str] = None,
        dtype: Any = None,
        trainable: bool = True,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        for name, value in (("hidden", hidden), ("features", features)):
            if value < 1:
                raise Mistake(f"{name} must be at least 1. Received {name}={value}.")
        self.hidden, self.features, self.synchronized = hidden, features, synchronized

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise Mistake(f"the last axis must be known. Received input shape {tuple(input_shape)}.")
        self.expand = pointwise(self.hidden, channels, name="expand", dtype=self.dtype_policy)
        self.norm = BatchNormAct("relu", synchronized=self.synchronized, name="norm", dtype=self.dtype_policy)
        self.reduce = pointwise(self.features, self.hidden, name="reduce", dtype=self.dtype_policy)
        wide = (*input_shape[:-1], self.hidden)
        self.expand.build(input_shape)
        self.norm.build(wide)
        self.reduce.build(wide)
        self.input_spec = tf.keras.layers.InputSpec(ndim=4, axes={-1: channels})
        super().build(input_shape)

    def call(self, inputs, training=False):
        return self.reduce(self.norm(self.expand(inputs), training=training))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.features)

    def get_config(self):
        config = {"hidden": self.hidden, "features": self.features, "synchronized": self.synchronized}
        return {**super().get_config(), **config}


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class PixelPropagation(tf.keras.layers.Layer):
    """The pixel propagation module: each pixel becomes the sum of all pixels' values, weighted by similarity.

    With u(x) = x / |x| over channels: A_ij = max(u(x_i) . u(x_j), clamp) ** sharpness and y_i = sum_j A_ij u(g(x_j)),
    where g is `value_layers` 1x1 convolutions.

    Args:
      sharpness: exponent of the similarity (gamma of the paper).
      value_layers: 0: g is the identity; 1: a 1x1 convolution; 2: convolution, batch normalization, ReLU, convolution.
      clamp: lower bound of the similarity before the exponent.
      synchronized: batch statistics of g over all replicas.
      block: pixels at a time, so that memory grows with h * w * block instead of (h * w)^2; None for all at once. Same
        numbers.

    Input and output shape: [B, h, w, D]; the result is not of unit length. All inside is float32 under float16 and
      bfloat16 policies.

    Raises:
      Mistake: if sharpness or block is not positive, value_layers is not 0, 1 or 2, or clamp is negative
        while sharpness is not an integer.

    Source: PixPro section 3.2, equations 3 and 4. As in the authors' `featprop`, values are of unit length (the paper
      has g(x_j) itself) and 1e-6 is added to the similarity if sharpness is below 1. The authors leave the
      normalization inside g local.
    """

    def __init__(
        self,
        sharpness: float = 2.0,
        value_layers: int = 1,
        clamp: float = 0.0,
        synchronized: bool = True,
        block: Optional[int] = None,
        name: Optional[str] = None,
        dtype: Any = None,
        trainable: bool = True,
    ):
        super().__init__(autocast=False, name=name, dtype=dtype, trainable=trainable)
        if not sharpness > 0:
            raise Mistake(f"sharpness must be positive. Received sharpness={sharpness}.")
        if value_layers not in (0, 1, 2):
            raise Mistake(f"value_layers must be 0, 1 or 2. Received value_layers={value_layers}.")
        if clamp < 0 and sharpness != int(sharpness):
            raise Mistake(
                f"a negative similarity has no fractional power. Received clamp={clamp}, sharpness={sharpness}. "
                "Pass clamp=0. or an integer sharpness."
            )
        check_block(block)
        self.sharpness, self.value_layers, self.clamp = sharpness, value_layers, clamp
        self.synchronized, self.block = synchronized, block

    def build(self, input_shape):
        channels = input_shape[-1]
        dtype = "float64" if self.dtype == "float64" else "float32"
        self.value = [
            pointwise(channels, channels, name=f"value{i + 1}", dtype=dtype) for i in range(self.value_layers)
        ]
        if not KERAS_2:  # there checkpoints hold attributes, but no list
            for layer in self.value:
                setattr(self, layer.name, layer)
        self.norm = None
        if self.value_layers == 2:
            self.norm = BatchNormAct("relu", synchronized=self.synchronized, name="norm", dtype=dtype)
        for layer in (*self.value, *([self.norm] if self.norm else [])):
            layer.build(input_shape)
        self.input_spec = tf.keras.layers.InputSpec(ndim=4, axes={-1: channels})
        super().build(input_shape)

    def call(self, inputs, training=False):
        features = functional.raised(inputs)
        shape = tf.shape(features)
        rows, columns = (features.shape[axis] or shape[axis] for axis in (1, 2))
        flat = [shape[0], rows * columns, features.shape[-1]]
        pixels = tf.reshape(unit(features), flat)
        values = tf.reshape(unit(self._values(features, training)), flat)
        if self.block is None:
            propagated = self._propagated(pixels, pixels, values)
        else:
            propagated = rowwise(self._propagated, [pixels], [pixels, values], self.block)
        return tf.cast(tf.reshape(propagated, shape), self.compute_dtype)

    def _propagated(self, some, pixels, values):
        """What some of the pixels [B, r, D] become."""
        similarity = tf.maximum(tf.matmul(some, pixels, transpose_b=True), self.clamp)
        return tf.matmul(self._sharpened(similarity), values)

    def _values(self, features, training):
        if self.value_layers == 2:
            features = self.norm(self.value[0](features), training=training)
        return self.value[-1](features) if self.value else features

    def _sharpened(self, similarity):
        if self.sharpness == 1:
            return similarity
        if self.sharpness == 2:
            return tf.square(similarity)
        if self.sharpness < 1:
            similarity += 1e-6  # the slope of a root is infinite at 0
        return tf.pow(similarity, self.sharpness)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = {"sharpness": self.sharpness, "value_layers": self.value_layers, "clamp": self.clamp}
        return {**super().get_config(), **config, "synchronized": self.synchronized, "block": self.block}
