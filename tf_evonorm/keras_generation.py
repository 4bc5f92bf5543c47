"""Which generation of Keras `tf.keras` is, what differs between the two, and the refusal to mix them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

KERAS_2 = getattr(tf.keras, "__version__", "2.").startswith("2.")


class OneGeneration(tf.keras.layers.Layer):
    """A layer that may only be called in models of its own Keras."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        refuse_mixing(type(self).__name__, args)
        return super().__call__(*args, **kwargs)


def refuse_mixing(name: str, inputs: Any) -> None:
    """Raises where a model of another Keras calls a layer of `tf.keras`: it would not see the layer's weights.

    Args:
      name: of the layer's class, for the message.
      inputs: what the layer is called with.

    Raises:
      TypeError: an input is symbolic in another Keras, or a layer of another Keras is calling. The message says what to
        set.
    """
    for package in ("keras", "tf_keras"):
        other = sys.modules.get(package)
        if other is None or other.layers.Layer is tf.keras.layers.Layer:
            continue
        if _calling(package) or any(_symbolic(package, x) for x in tf.nest.flatten(inputs)):
            raise TypeError(
                f"{name} needs a model of tf.keras, which here is "
                f"{tf.keras.layers.Layer.__module__.partition('.')[0]}. "
                f"Received a call from a model of {package}, which would not see its weights. Build the "
                "model with tf.keras, or "
                f"set TF_USE_LEGACY_KERAS={int(package == 'tf_keras')} before TensorFlow is imported, so "
                f"that tf.keras is {package}."
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


def variables(weights: Iterable) -> list[tf.Variable]:
    """TensorFlow's own variables of some weights, which gradient tapes and strategies take."""
    return [weight if KERAS_2 else weight.value for weight in weights]


def scaled(optimizer: tf.keras.optimizers.Optimizer, loss: tf.Tensor) -> tf.Tensor:
    """The loss as an optimizer with a loss scale wants it; unchanged for others."""
    scale = getattr(optimizer, "get_scaled_loss" if KERAS_2 else "scale_loss", None)
    return loss if scale is None else scale(loss)


def unscaled(optimizer: tf.keras.optimizers.Optimizer, gradients: list) -> list:
    """Gradients of a scaled loss as `apply_gradients` wants them: Keras 3 takes the scale out itself."""
    return optimizer.get_unscaled_gradients(gradients) if hasattr(optimizer, "get_unscaled_gradients") else gradients


def layered(model: tf.keras.Model) -> tf.keras.Model | tf.train.Checkpoint:
    """What checkpoints hold of a functional model: its layers with weights, in their order.

    Both generations thus read the other's checkpoints.

    Keras 2 names them so by itself; Keras 3 counts all operations and hides the kernels of its convolutions.
    """
    if KERAS_2:
        return model
    layers = [layer for layer in model.layers if layer.weights]
    return tf.train.Checkpoint(**{f"layer_with_weights-{i}": _weights(layer) for i, layer in enumerate(layers)})


def _weights(layer):
    return tf.train.Checkpoint(**{name: weight.value for name, weight in weight_names(layer)})


def weight_names(layer: tf.keras.layers.Layer) -> list[tuple[str, Any]]:
    """(name inside the layer, weight) of every weight of a layer, the names those of Keras 2 in both generations."""
    depthwise = {"kernel": "depthwise_kernel"} if isinstance(layer, tf.keras.layers.DepthwiseConv2D) else {}
    found = []
    for weight in layer.weights:
        name = weight.name.partition(":")[0] if KERAS_2 else weight.path
        _, inside, own = name.partition(f"{layer.name}/")
        own = own if inside else name.rpartition("/")[2]
        found.append((depthwise.get(own, own), weight))
    return found


def gradient_norm(optimizer: tf.keras.optimizers.Optimizer, gradients: list) -> tf.Tensor:
    """The norm of all gradients that `unscaled` gave, without a loss scale."""
    norm = tf.linalg.global_norm(gradients)
    return norm if KERAS_2 else norm / scaled(optimizer, tf.ones_like(norm))


def follows_batches() -> dict[str, Any]:
    """Arguments of `add_weight` for a statistic that every replica updates on its own.

    What is read or saved is the replicas' mean.
    """
    if KERAS_2:
        on_read = tf.VariableSynchronization.ON_READ
        return {"trainable": False, "aggregation": tf.VariableAggregation.MEAN, "synchronization": on_read}
    return {"trainable": False, "aggregation": "mean"}
