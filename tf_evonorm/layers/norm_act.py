"""What all layers that normalize and activate share: channels, affine, precision, masks."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any, Union

import numpy as np
import tensorflow as tf

from tf_evonorm import functional
from tf_evonorm.keras_generation import KERAS_2, OneGeneration, follows_batches
from tf_evonorm.mistakes import Mistake

# What Keras takes for a variable, and the module that reads and writes it.
OPTIONS = {
    "initializer": tf.keras.initializers,
    "regularizer": tf.keras.regularizers,
    "constraint": tf.keras.constraints,
}
Initializer = Union[str, dict, tf.keras.initializers.Initializer]
Regularizer = Union[str, dict, tf.keras.regularizers.Regularizer, None]
Constraint = Union[str, dict, tf.keras.constraints.Constraint, None]


def keras_object(argument: str, value: Any) -> Any:
    """Returns what Keras makes of an argument `..._initializer`, `..._regularizer` or `..._constraint`.

    Raises:
      Mistake: a value that Keras does not know.
    """
    option = argument.rpartition("_")[2]
    try:
        found = OPTIONS[option].get(value)
        if isinstance(found, str):  # Keras 2 returns the name of a regularizer that it does not know
            raise ValueError(found)
    except (ValueError, TypeError) as error:
        raise Mistake(
            f"{argument} must be a name, a config or an object that tf.keras.{option}s.get takes. Received {value!r}."
        ) from error
    return found


def arguments(scope: dict[str, Any], *but: str) -> dict[str, Any]:
    """The arguments of a constructor by name.

    Args:
      scope: `locals()` at the constructor's first line.
      *but: names to leave out.
    """
    return {name: value for name, value in scope.items() if name not in ("self", "__class__", *but)}


def check_momentum(momentum: float) -> float:
    """The momentum, if it lies in 0..1."""
    if not 0 <= momentum <= 1:
        raise Mistake(f"momentum must lie in 0..1. Received momentum={momentum}. The authors' is 0.9.")
    return float(momentum)


def whole(number: Any) -> Any:
    """NumPy's integers as Python's, which configs can hold; anything else as it is."""
    is_integer = isinstance(number, numbers.Integral) and not isinstance(number, bool)
    return int(number) if is_integer else number


def in_mode(function: Callable[[bool], tf.Tensor], training: Any, trainable: bool) -> tf.Tensor:
    """function(training), where training may be a tensor, and is False for a layer that is frozen."""
    if tf.is_tensor(training) and trainable:
        training = tf.cast(training, tf.bool)
        static = tf.get_static_value(training)
        if static is None:
            return tf.cond(training, lambda: function(True), lambda: function(False))
        training = static
    return function(trainable and bool(training))


class NormAct(OneGeneration):
    """A layer [B, ..., C] -> [B, ..., C] that normalizes, scales and shifts every channel, and activates.

    Subclasses write `normalized(x, training, weights)`, which returns the result; where gamma and beta are not its last
    step, also `conditioned`.

    Args:
      axis: where the channels are: -1 (channels last) or 1 (channels first).
      epsilon: added to every variance or mean square, inside the root.
      apply_act: False leaves the form without activation, which stands at the end of a residual branch.
      affine: False leaves out gamma and beta (as if 1 and 0), for `conditioned`, which is given them.
      beta_initializer: of the offset; gamma_initializer: of the scale.
      beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint: as in Keras' normalization layers.
      trainable, dtype, name: as in every Keras layer. Variables and statistics are float32 under float16 and bfloat16
        policies, and a float32 input is read as it is, whatever its size.
      input_shape: of a first layer of a `Sequential`, without the batch.

    Call arguments: inputs; training: a Python value or a tensor; mask: handed on to the next layer. What a mask hides
    (False) is left out of statistics of the batch, as in Keras' BatchNormalization; statistics of one sample take every
    position, as Keras' GroupNormalization does. With axis=1 a mask is handed on only.

    Input and output shape: [B, ..., C] floating point of rank 2 or more, any size but C unknown.
    """

    learns_from_batches = False  # whether training and inference differ
    _symbolic = False  # whether Keras 2 asks for the shape of the output alone

    def __init__(
        self,
        axis: int = -1,
        epsilon: float = 1e-5,
        apply_act: bool = True,
        affine: bool = True,
        beta_initializer: Initializer = "zeros",
        gamma_initializer: Initializer = "ones",
        beta_regularizer: Regularizer = None,
        gamma_regularizer: Regularizer = None,
        beta_constraint: Constraint = None,
        gamma_constraint: Constraint = None,
        trainable: bool = True,
        dtype: Any = None,
        name: str | None = None,
        input_shape: Sequence[int | None] | None = None,
    ):
        first = {} if input_shape is None else {"input_shape": tuple(input_shape)}
        super().__init__(trainable=trainable, dtype=dtype, name=name, autocast=False, **first)
        if not epsilon > 0:
            raise Mistake(f"epsilon must be positive. Received epsilon={epsilon}. The paper's is 1e-5.")
        self.axis = whole(axis)
        self.epsilon, self.apply_act, self.affine = float(epsilon), bool(apply_act), bool(affine)
        self.supports_masking = True
        self.vectors: list[str] = []
        self.describe("beta", beta_initializer, beta_regularizer, beta_constraint)
        self.describe("gamma", gamma_initializer, gamma_regularizer, gamma_constraint)

    def describe(
        self,
        name: str,
        initializer: Initializer,
        regularizer: Regularizer = None,
        constraint: Constraint = None,
    ) -> None:
        """Stores `<name>_initializer` and so on, for `channel_weight` and the config."""
        self.vectors = [*self.vectors, name]
        for option, value in zip(OPTIONS, (initializer, regularizer, constraint)):
            setattr(self, f"{name}_{option}", keras_object(f"{name}_{option}", value))

    def build(self, input_shape):
        shape = tuple(input_shape)
        if len(shape) < 2:
            raise Mistake(
                f"inputs must have at least two axes, batch and channels. Received input shape {shape}. Add "
                "the missing one."
            )
        if self.axis not in (-1, 1, len(shape) - 1):
            raise Mistake(
                f"axis must be the last or the one after the batch. Received axis={self.axis}, input shape {shape}. "
                "Pass axis=-1 (channels last) or axis=1 (channels first)."
            )
        if shape[self.axis] is None:
            raise Mistake(
                f"the number of channels must be known. Received input shape {shape}, axis={self.axis}. "
                "Give the model's input its channels, or build the layer with them first."
            )
        self.channels = int(shape[self.axis])
        self.input_spec = tf.keras.layers.InputSpec(min_ndim=2, axes={self.axis: self.channels})
        if self.affine:
            self.gamma, self.beta = self.channel_weight("gamma"), self.channel_weight("beta")
        else:
            dtype = self._vector()["dtype"]
            self.gamma, self.beta = np.ones(self.channels, dtype), np.zeros(self.channels, dtype)
        super().build(input_shape)

    def channel_weight(self, name: str) -> tf.Variable:
        """A trainable variable [C] with the options given to `describe`."""
        made = {option: getattr(self, f"{name}_{option}") for option in OPTIONS}
        return self.add_weight(name=name, **self._vector(), **made)

    def moving_weight(self, name: str, initializer: Initializer) -> tf.Variable:
        """A variable [C] that follows batches: every replica moves its own, and what is read or saved is their mean."""
        return self.add_weight(name=name, initializer=initializer, **self._vector(), **follows_batches())

    def move(self, variable: tf.Variable, value: tf.Tensor, values: tf.Tensor, momentum: float) -> None:
        """Moves a statistic towards that of a batch.

        A batch without values does not count: the last replica may be empty.
        """
        moved = momentum * variable + (1 - momentum) * tf.stop_gradient(value)
        variable.assign(tf.where(values > 0, moved, tf.convert_to_tensor(variable)))

    def _vector(self):
        dtype = "float64" if self.dtype == "float64" else "float32"
        return {"shape": (self.channels,), "dtype": dtype, "experimental_autocast" if KERAS_2 else "autocast": False}

    @tf.autograph.experimental.do_not_convert  # nothing to convert, and tracing is faster
    def call(self, inputs, training=None, mask=None):
        x = self.received(inputs)
        if self._symbolic:
            return tf.identity(tf.cast(x, self.compute_dtype))
        weights = self.weights_of(mask, x)
        if tf.is_tensor(training) and not self.learns_from_batches:
            training = True
        y = in_mode(lambda training: self.normalized(x, training, weights), training, self.trainable)
        return tf.cast(y, self.compute_dtype)

    if KERAS_2:

        def _infer_output_signature(self, *arguments):
            """A symbolic call, for which Keras 2 would trace the formula: most of the time of building a model."""
            self._symbolic = True
            try:
                return super()._infer_output_signature(*arguments)
            finally:
                self._symbolic = False

    def received(self, inputs: tf.Tensor) -> tf.Tensor:
        """The input in the compute dtype, or in float32 where that is half precision and the input is not."""
        x = tf.convert_to_tensor(inputs)
        half = tf.as_dtype(self.compute_dtype).size < 4
        x = tf.cast(x, "float32" if half and x.dtype in (tf.float32, tf.float64) else self.compute_dtype)
        if x.shape.rank is not None and x.shape[self.axis] is None:
            sizes = x.shape.as_list()
            sizes[self.axis] = self.channels
            x = tf.ensure_shape(x, sizes)
        return x

    def weights_of(self, mask: tf.Tensor | None, x: tf.Tensor) -> tf.Tensor | None:
        """1 where a position counts, 0 where a mask hides it, broadcast against x, float32 (float64 where x is)."""
        if mask is None or self.axis not in (-1, len(x.shape) - 1):
            return None
        weights = tf.cast(mask, functional.raised(x).dtype)
        index = (..., *[tf.newaxis] * (len(x.shape) - len(weights.shape)))
        return weights[index]

    def conditioned(
        self,
        x: tf.Tensor,
        gamma: tf.Tensor,
        beta: tf.Tensor,
        training: bool,
        weights: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The layer with a gamma and beta of each sample.

        Args:
          x: [B, ..., C] as `received`.
          gamma, beta: broadcast against x, float32 (float64 where x is).
          training, weights: as in `normalized`.

        Returns:
          The result in the dtype of x.
        """
        return tf.cast(functional.raised(self.normalized(x, training, weights)) * gamma + beta, x.dtype)

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

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NormAct:
        config = dict(config)
        shape = config.pop("batch_input_shape", None)  # of a first layer that was given its shape, in Keras 2
        return super().from_config({**config, "input_shape": shape[1:]} if shape else config)
