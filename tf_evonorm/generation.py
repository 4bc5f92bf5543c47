"""Which generation of Keras `tf.keras` is, and the refusal to serve in a model of another Keras."""

from __future__ import annotations

import sys
from typing import Any

import tensorflow as tf

KERAS_2 = getattr(tf.keras, "__version__", "2.").startswith("2.")


class OneGeneration(tf.keras.layers.Layer):
    """A layer that may only be called in models of its own Keras."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        refuse_mixing(type(self).__name__, args)
        return super().__call__(*args, **kwargs)


def refuse_mixing(name: str, inputs: Any) -> None:
    """Raises where a layer of `tf.keras` is called by a model of another Keras, which would build and not see its weights.

    Args:
      name: of the layer's class, for the message.
      inputs: what the layer is called with.

    Raises:
      TypeError: an input is symbolic in another Keras, or a layer of another Keras is calling. The message says what to set.
    """
    for package in ("keras", "tf_keras"):
        other = sys.modules.get(package)
        if other is None or other.layers.Layer is tf.keras.layers.Layer:
            continue
        if _calling(package) or any(_symbolic(package, x) for x in tf.nest.flatten(inputs)):
            raise TypeError(
                f"{name} needs a model of tf.keras, which here is {tf.keras.layers.Layer.__module__.partition('.')[0]}. "
                f"Received a call from a model of {package}, which would not see its weights. Build the model with tf.keras, or "
                f"set TF_USE_LEGACY_KERAS={int(package == 'tf_keras')} before TensorFlow is imported, so that tf.keras is {package}."
            )


def _symbolic(package, x):
    kind = type(x)
    return kind.__name__ == "KerasTensor" and kind.__module__.startswith(f"{package}.")


def _calling(package):
    """Is a layer of that Keras being called in this thread? Neither generation says so in public."""
    keras_3 = sys.modules.get(f"{package}.src.backend.common.global_state")
    if keras_3 is not None:
        return keras_3.get_global_attribute("current_call_ctx") is not None
    keras_2 = sys.modules.get(f"{package}.src.engine.base_layer_utils")
    return keras_2 is not None and keras_2.call_context().in_call
