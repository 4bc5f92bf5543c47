"""Which generation of Keras `tf.keras` is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

KERAS_2 = getattr(tf.keras, "__version__", "2.").startswith("2.")


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
    """What checkpoints hold of a functional model: its layers with weights in their order, so that both generations read the other's.

    Keras 2 names them so by itself; Keras 3 counts all operations and hides the kernels of its convolutions.
    """
    if KERAS_2:
        return model
    layers = [layer for layer in model.layers if layer.weights]
    return tf.train.Checkpoint(**{f"layer_with_weights-{i}": _weights(layer) for i, layer in enumerate(layers)})


def _weights(layer):
    depthwise = {"kernel": "depthwise_kernel"} if isinstance(layer, tf.keras.layers.DepthwiseConv2D) else {}
    return tf.train.Checkpoint(**{depthwise.get(weight.name, weight.name): weight.value for weight in layer.weights})


def gradient_norm(optimizer: tf.keras.optimizers.Optimizer, gradients: list) -> tf.Tensor:
    """The norm of all gradients that `unscaled` gave, without a loss scale."""
    norm = tf.linalg.global_norm(gradients)
    return norm if KERAS_2 else norm / scaled(optimizer, tf.ones_like(norm))


def follows_batches() -> dict[str, Any]:
    """Arguments of `add_weight` for a statistic that every replica moves on its own: what is read or saved is the replicas' mean."""
    if KERAS_2:
        on_read = tf.VariableSynchronization.ON_READ
        return {"trainable": False, "aggregation": tf.VariableAggregation.MEAN, "synchronization": on_read}
    return {"trainable": False, "aggregation": "mean"}
