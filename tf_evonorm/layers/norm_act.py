"""What all layers that normalize and activate have in common: where the channels are, their affine, their precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_evonorm import functional
from tf_evonorm.keras_generation import KERAS_2, OneGeneration

# What Keras may be told about a variable, and the module that reads and writes it.
OPTIONS = {
    "initializer": tf.keras.initializers,
    "regularizer": tf.keras.regularizers,
    "constraint": tf.keras.constraints,
}


class NormAct(OneGeneration):
    """A layer [B, ..., C] -> [B, ..., C] that normalizes, scales and shifts every channel, and activates.

    Subclasses write `normalized(x, training)`, which returns the result in the dtype of x; where gamma and beta are not its last
    step, also `conditioned`.

    Args:
      axis: where the channels are: -1 (channels last) or 1 (channels first).
      epsilon: added to every variance or mean square, inside the root.
      apply_act: False leaves the form without activation, which stands at the end of a residual branch.
      affine: False leaves out gamma and beta (as if 1 and 0), for `conditioned`, which is given them.
      beta_initializer: of the offset; gamma_initializer: of the scale.
      beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint: as in Keras' normalization layers.
      **kwargs: name, dtype, trainable. Variables and statistics are float32 under float16 and bfloat16 policies.

    Input and output shape: [B, ..., C] floating point of rank 2 or more, any size but C unknown.
    """

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-5,
        apply_act: bool = True,
        affine: bool = True,
        beta_initializer: str | tf.keras.initializers.Initializer = "zeros",
        gamma_initializer: str | tf.keras.initializers.Initializer = "ones",
        beta_regularizer: tf.keras.regularizers.Regularizer | None = None,
        gamma_regularizer: tf.keras.regularizers.Regularizer | None = None,
        beta_constraint: tf.keras.constraints.Constraint | None = None,
        gamma_constraint: tf.keras.constraints.Constraint | None = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)
        if not epsilon > 0:
            raise ValueError(f"epsilon must be positive. Received epsilon={epsilon}. The paper's is 1e-5.")
        self.axis, self.epsilon, self.apply_act, self.affine = axis, epsilon, apply_act, affine
        self.vectors: list[str] = []
        self.describe("beta", beta_initializer, beta_regularizer, beta_constraint)
        self.describe("gamma", gamma_initializer, gamma_regularizer, gamma_constraint)

    def describe(
        self,
        name: str,
        initializer: str | tf.keras.initializers.Initializer,
        regularizer: tf.keras.regularizers.Regularizer | None = None,
        constraint: tf.keras.constraints.Constraint | None = None,
    ) -> None:
        """Stores `<name>_initializer` and so on, for `channel_weight` and the config."""
        self.vectors = [*self.vectors, name]
        for option, value in zip(OPTIONS, (initializer, regularizer, constraint)):
            setattr(self, f"{name}_{option}", OPTIONS[option].get(value))

    def build(self, input_shape):
        shape = tuple(input_shape)
        if len(shape) < 2:
            raise ValueError(f"a batch of channels has at least two axes. Received input shape {shape}.")
        if self.axis not in (-1, 1, len(shape) - 1):
            raise ValueError(
                f"axis must be the last or the one after the batch. Received axis={self.axis}, input shape {shape}. "
                "Pass axis=-1 (channels last) or axis=1 (channels first)."
            )
        if shape[self.axis] is None:
            raise ValueError(f"the number of channels must be known. Received input shape {shape}, axis={self.axis}.")
        self.channels = shape[self.axis]
        if self.affine:
            self.gamma, self.beta = self.channel_weight("gamma"), self.channel_weight("beta")
        else:
            dtype = self._vector()["dtype"]
            self.gamma, self.beta = np.ones(self.channels, dtype), np.zeros(self.channels, dtype)
        super().build(input_shape)

    def channel_weight(self, name: str) -> tf.Variable:
        """A trainable variable [C] as `describe` was told."""
        made = {option: getattr(self, f"{name}_{option}") for option in OPTIONS}
        return self.add_weight(name=name, **self._vector(), **made)

    def moving_weight(self, name: str, initializer: str | tf.keras.initializers.Initializer) -> tf.Variable:
        """A variable [C] that follows batches: every replica moves its own, and what is read or saved is their mean."""
        several = {"aggregation": "mean"}
        if KERAS_2:
            several = {
                "aggregation": tf.VariableAggregation.MEAN,
                "synchronization": tf.VariableSynchronization.ON_READ,
            }
        return self.add_weight(name=name, trainable=False, initializer=initializer, **self._vector(), **several)

    def _vector(self):
        dtype = "float64" if self.dtype == "float64" else "float32"
        return {"shape": (self.channels,), "dtype": dtype, "experimental_autocast" if KERAS_2 else "autocast": False}

    def call(self, inputs, training=None):
        return self.normalized(tf.cast(inputs, self.compute_dtype), bool(training) and self.trainable)

    def conditioned(self, x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, training: bool | tf.Tensor) -> tf.Tensor:
        """The layer with a gamma and beta of each sample.

        Args:
          x: [B, ..., C] in the layer's compute dtype.
          gamma, beta: broadcast against x, float32 (float64 where x is).
          training: as in `normalized`.

        Returns:
          The result in the dtype of x.
        """
        return tf.cast(functional.raised(self.normalized(x, training)) * gamma + beta, x.dtype)

    def along_channels(self, vector: tf.Tensor, rank: int) -> tf.Tensor:
        """[C] reshaped so that it broadcasts against an input of that rank."""
        if self.axis in (-1, rank - 1):
            return tf.convert_to_tensor(vector)
        return tf.reshape(vector, [-1] + [1] * (rank - 2))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = {"axis": self.axis, "epsilon": self.epsilon, "apply_act": self.apply_act, "affine": self.affine}
        for name in self.vectors:
            for option, module in OPTIONS.items():
                config[f"{name}_{option}"] = module.serialize(getattr(self, f"{name}_{option}"))
        return {**super().get_config(), **config}
