"""Layers that stand where an activation stood which the layer before it has absorbed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="tf_evonorm")
class PassThrough(tf.keras.layers.Layer):
    """Stands where an activation stood that the layer before it has absorbed: returns its first tensor, of any shape.

    Where it stands for a step of an activation written as arithmetic, such as the product in x * sigmoid(x), all
    tensors that it receives are the same.

    Args:
        name, dtype, trainable: as in every layer; the result has that dtype. Masks are handed on.
    """

    def __init__(self, name: str | None = None, dtype: Any = None, trainable: bool = True):
        super().__init__(name=name, dtype=dtype, trainable=trainable, autocast=False)
        self.supports_masking = True

    def call(self, inputs, *args, **kwargs):
        given = tf.nest.flatten([inputs, args, kwargs])
        first = next((x for x in given if len(getattr(x, "shape", ())) > 1), given[0])
        return tf.cast(first, self.compute_dtype) if first.dtype.is_floating else first

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of the first tensor."""
        return tf.nest.flatten(mask)[0]

    def compute_output_shape(self, input_shape):
        nested = isinstance(input_shape, (list, tuple)) and input_shape and isinstance(input_shape[0], (list, tuple))
        return input_shape[0] if nested else input_shape


@tf.keras.utils.register_keras_serializable(package="tf_evonorm")
class SharedActivation(tf.keras.layers.Layer):
    """An activation called at several positions of a model, at some of which the layer before it has absorbed it.

    Args:
        activation: the activation layer.
        name, dtype, trainable: as in every layer.

    Call arguments:
        inputs: floating point tensor of any shape.
        active: False returns the input.
    """

    def __init__(
        self, activation: tf.keras.layers.Layer, name: str | None = None, dtype: Any = None, trainable: bool = True
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        self.activation = activation
        self.supports_masking = True
        self.absorbs: Callable[[Any], bool] | None = None

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer; while a model is copied, `absorbs` says which of its layers have absorbed the activation."""
        history = getattr(inputs, "_keras_history", None)
        if self.absorbs is not None and history is not None and self.absorbs(history[0]):
            kwargs["active"] = False
        return super().__call__(inputs, *args, **kwargs)

    def build(self, input_shape):
        if not self.activation.built:
            self.activation.build(input_shape)
        super().build(input_shape)

    def call(self, inputs, active=True):
        return self.activation(inputs) if active else inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "activation": tf.keras.layers.serialize(self.activation)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SharedActivation:
        """The layer of a config, with its inner activation."""
        return cls(**{**config, "activation": tf.keras.layers.deserialize(config["activation"])})
