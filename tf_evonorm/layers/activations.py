"""Activations by name, with one meaning under both generations of Keras."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_evonorm.mistakes import Mistake

SWISH_V = "swish_v"  # z * sigmoid(v * z) with a learned v, which is the layer's own variable


def hard_silu(z: tf.Tensor) -> tf.Tensor:
    """z * relu6(z + 3) / 6, also called hard swish; Keras 2 does not have it.

    Source: Howard et al. 2019 (MobileNetV3), section 5.2.
    """
    return z * (tf.nn.relu6(z + 3) * (1 / 6))  # in this order float16 does not overflow


_OWN = {"hard_silu": hard_silu, "hard_swish": hard_silu}


def activation(identifier: str | dict | Callable | None) -> str | Callable[[tf.Tensor], tf.Tensor]:
    """The function that an `activation` argument names.

    Args:
      identifier: a name that Keras has ("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", ...),
        "hard_silu" or "hard_swish"; "swish_v"; None (linear); a function of tensors; a Keras layer without weights,
        such as `LeakyReLU(0.1)`; or what `serialized` returned.

    Returns:
      The function; "swish_v" itself.

    Raises:
      Mistake: an unknown name.
    """
    if identifier == SWISH_V:
        return SWISH_V
    if isinstance(identifier, str) and identifier in _OWN:
        return _OWN[identifier]
    if isinstance(identifier, dict) and identifier.get("class_name") != "function":
        return tf.keras.layers.deserialize(identifier)
    try:
        return tf.keras.activations.get(identifier)
    except ValueError as error:
        raise Mistake(
            f"activation must be a name of Keras, hard_silu, hard_swish, swish_v, a function or a layer. Received "
            f"{identifier!r}. Pass for example 'relu'."
        ) from error


# Functions of one value each, by the names that both generations of Keras have.
_ELEMENT_WISE = (
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "mish", "softplus", "softsign",
    "tanh", "sigmoid", "hard_sigmoid", "exponential", "hard_silu",
)  # fmt: skip


def swish_v(z: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
    """z * sigmoid(v * z)."""
    return z * tf.sigmoid(v * z)


def above_threshold(z: tf.Tensor, tau: tf.Tensor) -> tf.Tensor:
    """max(z, tau), the threshold of filter response normalization."""
    return tf.maximum(z, tau)


@functools.cache
def _element_wise() -> tuple[str | Callable, ...]:
    return tuple(activation(name) for name in _ELEMENT_WISE)


def is_element_wise(function: str | Callable) -> bool:
    """Whether an activation is known to take each value for itself: the named ones but softmax, not a user's own."""
    return function == SWISH_V or any(function is one for one in _element_wise())


def serialized(function: str | Callable) -> Any:
    """What a config holds of an activation: a name, or the config of a layer."""
    if function in (SWISH_V, hard_silu):
        return SWISH_V if function == SWISH_V else "hard_silu"
    if isinstance(function, tf.keras.layers.Layer):
        config = tf.keras.layers.serialize(function)
        config.pop("build_config", None)  # only there once the layer has been called
        return config
    return tf.keras.activations.serialize(function)
