"""Instance terms: what the pretext model may ask of whole views beside, or in place of, their pixels."""

from __future__ import annotations

from typing import Any, Optional

import tensorflow as tf

from tf_evonorm import functional
from tf_pixpro.pretext.layers import ProjectionHead, unit
from tf_pixpro.pretext.losses import check_temperature, check_weight, instance_consistency, instance_contrast


class _InstanceTerm(tf.keras.layers.Layer):
    """A query branch on one level of the encoder; its momentum copy is made of `projection` alone."""

    def __init__(
        self,
        hidden: int = 4096,
        features: int = 256,
        synchronized: bool = True,
        level: Optional[str] = None,
        weight: float = 1.0,
        name: Optional[str] = None,
        dtype: Any = None,
        trainable: bool = True,
    ):
        super().__init__(autocast=False, name=name, dtype=dtype, trainable=trainable)
        check_weight(weight)
        self.weight = weight
        self.hidden, self.features, self.synchronized, self.level = hidden, features, synchronized, level
        self.projection = self._head("projection")

    def _head(self, name):
        dtype = getattr(self, "dtype_policy", None) or self.dtype
        return ProjectionHead(self.hidden, self.features, self.synchronized, name=name, dtype=dtype)

    def build(self, input_shape):
        self.projection.build((None, None, None, input_shape[-1]))
        self.input_spec = tf.keras.layers.InputSpec(ndim=4, axes={-1: input_shape[-1]})
        super().build(input_shape)

    def call(self, inputs, training=False):
        return tf.cast(self.query(inputs, training), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.features)

    def get_config(self):
        config = {"hidden": self.hidden, "features": self.features, "synchronized": self.synchronized}
        return {**super().get_config(), **config, "level": self.level, "weight": self.weight}


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class BYOL(_InstanceTerm):
    """The authors' instance term: one view's prediction equals the momentum branch's vector of the other.

    With u(x) = x / |x|: query u(mean of prediction(projection(features))), target u(mean of momentum
    projection(features)), loss
    -2 query . target, the means over all cells.

    Args:
      hidden: channels inside each head.
      features: channels of the vectors, D.
      synchronized: batch statistics over all replicas.
      level: which of the encoder's outputs it reads; None is the pixel term's (the last one, if it has several).
      weight: factor of the loss in the sum of terms.

    Input shape: [B, h, w, C]. Output shape: [B, D], the query vectors, of unit length.

    Raises:
      Mistake: if hidden or features is not positive.

    Source: the authors' `contrast/models/PixPro.py` with `--pixpro-ins-loss-weight`. There a fixed 7x7 average ties it
      to views of 224 pixels; here the mean is over any map. Heads come before the mean, unlike BYOL (arXiv 2006.07733),
      which averages first.
    """

    def __init__(
        self,
        hidden: int = 4096,
        features: int = 256,
        synchronized: bool = True,
        level: Optional[str] = None,
        weight: float = 1.0,
        name: Optional[str] = None,
        dtype: Any = None,
        trainable: bool = True,
    ):
        super().__init__(hidden, features, synchronized, level, weight, name, dtype, trainable)
        self.prediction = self._head("prediction")

    def build(self, input_shape):
        self.prediction.build((None, None, None, self.features))
        super().build(input_shape)

    def query(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Vectors of unit length that learn: [B, h, w, C] -> [B, D] float32 (or float64)."""
        return _mean_unit(self.prediction(self.projection(features, training=training), training=training))

    def target(self, features: tf.Tensor, projection: tf.keras.layers.Layer, training: bool = False) -> tf.Tensor:
        """The same of the momentum branch, by its copy of `projection`."""
        return _mean_unit(projection(features, training=training))

    def compare(self, query: tf.Tensor, target: tf.Tensor, same_view: tf.Tensor) -> tf.Tensor:
        """Loss of one direction, [B]."""
        return instance_consistency(query, target)


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class SimCLR(_InstanceTerm):
    """The instance term of the paper: tell one's own image among all images of the step, on all replicas.

    With u(x) = x / |x|: query u(projection(mean of features)), target the same by the momentum branch, loss
    `tf_pixpro.pretext.losses.instance_contrast`.

    Args:
      temperature: divides the similarities.
      hidden, features, synchronized, level, weight: as in `BYOL`.

    Input shape: [B, h, w, C]. Output shape: [B, D], the query vectors, of unit length.

    Raises:
      Mistake: if temperature, hidden or features is not positive.

    Source: PixPro section 3.3 (weight 1 beside the pixel term); the authors' released code has `BYOL` instead. SimCLR
      (arXiv
    2002.05709) has no momentum encoder and a head of 2048 and 128 channels; temperature 0.1 is its table 5.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        hidden: int = 4096,
        features: int = 256,
        synchronized: bool = True,
        level: Optional[str] = None,
        weight: float = 1.0,
        name: Optional[str] = None,
        dtype: Any = None,
        trainable: bool = True,
    ):
        super().__init__(hidden, features, synchronized, level, weight, name, dtype, trainable)
        check_temperature(temperature)
        self.temperature = temperature

    def query(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Vectors of unit length that learn: [B, h, w, C] -> [B, D] float32 (or float64)."""
        return self.target(features, self.projection, training)

    def target(self, features: tf.Tensor, projection: tf.keras.layers.Layer, training: bool = False) -> tf.Tensor:
        """The same of the momentum branch, by its copy of `projection`."""
        mean = tf.cast(tf.reduce_mean(functional.raised(features), axis=[1, 2], keepdims=True), features.dtype)
        return unit(projection(mean, training=training)[:, 0, 0])

    def compare(self, query: tf.Tensor, target: tf.Tensor, same_view: tf.Tensor) -> tf.Tensor:
        """Loss of one direction, [B]."""
        return instance_contrast(query, target, same_view, self.temperature)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


def _mean_unit(features):
    return unit(tf.reduce_mean(functional.raised(features), axis=[1, 2]))
