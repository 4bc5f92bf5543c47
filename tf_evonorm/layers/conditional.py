"""Layers of a class-conditional generator: conditional gamma and beta, and spectral normalization."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_evonorm.keras_generation import OneGeneration
from tf_evonorm.layers.norm_act import NormAct, in_mode
from tf_evonorm.mistakes import Mistake


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class SpectralNormalization(tf.keras.layers.SpectralNormalization):
    """Keras' spectral normalization, in full precision, compilable, and at rest where it is frozen.

    Each call in training takes one step of the power iteration and divides the kernel, in its variable, by the largest
    singular value found. Under float16 and bfloat16 policies Keras 2.15 rounds that variable to half precision at each
    step, and inside functions it fails at a Python `if` about a tensor.

    Args:
      layer: a Keras layer with a `kernel` or `embeddings`.
      power_iterations: steps of the power iteration at each call in training.
      trainable: a frozen layer calls the wrapped one and nothing else.
      dtype: of older configs; the wrapped layer's is taken.
      name: as in every Keras layer.

    Input and output shape: those of the wrapped layer.

    Source: Miyato et al. 2018. There the kernel itself stays as it is and gradients flow through the division too;
      Keras projects.
    """

    def __init__(
        self,
        layer: tf.keras.layers.Layer,
        power_iterations: int = 1,
        trainable: bool = True,
        dtype: Any = None,
        name: str | None = None,
    ) -> None:
        del dtype
        options = {"trainable": trainable, "dtype": layer.dtype, "name": name, "autocast": False}
        super().__init__(layer, power_iterations=power_iterations, **options)

    @tf.autograph.experimental.do_not_convert
    def call(self, inputs, training=False):
        def called(training):
            if training:
                self._iterate()
            return self.layer(inputs)

        return in_mode(called, training, self.trainable)

    def _iterate(self):
        rows, u = tf.reshape(self.kernel, [-1, self.kernel.shape[-1]]), tf.convert_to_tensor(self.vector_u)
        for _ in range(self.power_iterations):
            v = tf.math.l2_normalize(tf.matmul(u, rows, transpose_b=True))
            u = tf.math.l2_normalize(tf.matmul(v, rows))
        largest = tf.matmul(tf.matmul(v, rows), u, transpose_b=True)
        self.vector_u.assign(u)
        self.kernel.assign(tf.reshape(tf.math.divide_no_nan(rows, largest), self.kernel.shape))


def spectral(layer: tf.keras.layers.Layer) -> SpectralNormalization:
    """`SpectralNormalization` of a layer that has a name, called after it."""
    return SpectralNormalization(layer, name=f"{layer.name}_spectral")


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class ConditionalNormAct(OneGeneration):
    """A normalization and activation whose gamma is 1 + condition @ W, and whose beta is condition @ V.

    Args:
      layer: a `NormAct`, such as `EvoNormS0(affine=False)`, with channels last. Its own v, moving statistics and
        options stay.
      trainable, dtype, name: as in every Keras layer.

    The mask of x is handed on, and statistics leave out what it hides. Input: (x [B, ..., C], condition [B, D])
    floating point. Output: [B, ..., C]. W and V are [D, C], orthogonal at first, spectrally normalized.

    Raises:
      Mistake: the layer has a gamma and beta of its own, or its channels are not last.

    Source: BigGAN, section 3 and appendix B: linear, without bias, gamma centred at 1. The EvoNorm paper does not say
      how the class reaches its layers; here it takes the place of their gamma and beta.
    """

    def __init__(self, layer: NormAct, trainable: bool = True, dtype: Any = None, name: str | None = None) -> None:
        super().__init__(trainable=trainable, dtype=dtype, name=name, autocast=False)
        self.supports_masking = True
        if layer.affine or layer.axis == 1:
            raise Mistake(
                f"the layer must leave gamma and beta to the condition, channels last. Received affine={layer.affine}, "
                f"axis={layer.axis}. Make it with affine=False and axis=-1."
            )
        self.layer = layer

    def build(self, input_shape):
        shape, _ = input_shape
        if not self.layer.built:
            self.layer.build(shape)
        options = {"use_bias": False, "dtype": "float64" if self.dtype == "float64" else "float32"}
        self.gamma, self.beta = (
            spectral(tf.keras.layers.Dense(shape[-1], kernel_initializer="orthogonal", name=name, **options))
            for name in ("gamma", "beta")
        )
        for vector in (self.gamma, self.beta):
            vector.build(input_shape[1])
        super().build(input_shape)

    @tf.autograph.experimental.do_not_convert  # nothing to convert, and tracing is faster
    def call(self, inputs, training=None, mask=None):
        x, condition = inputs
        x = self.layer.received(x)
        weights = None if mask is None else self.layer.weights_of(mask[0], x)
        shape = [-1, *[1] * (len(x.shape) - 2), x.shape[-1]]

        def conditioned(training):
            gamma = tf.reshape(1 + self.gamma(condition, training=training), shape)
            beta = tf.reshape(self.beta(condition, training=training), shape)
            return self.layer.conditioned(x, gamma, beta, training and self.layer.trainable, weights)

        return tf.cast(in_mode(conditioned, training, self.trainable), self.layer.compute_dtype)

    def compute_mask(self, inputs: list[tf.Tensor], mask: list | None = None) -> tf.Tensor | None:
        return None if mask is None else mask[0]

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "layer": tf.keras.layers.serialize(self.layer)}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> ConditionalNormAct:
        layer = tf.keras.layers.deserialize(config["layer"], custom_objects=custom_objects)
        return cls(**{**config, "layer": layer})
