"""Another normalization and activation in Model Garden's heads, which know batch normalization only."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

_BATCH_NORMS = (tf.keras.layers.BatchNormalization, tf.keras.layers.experimental.SyncBatchNormalization)


def replace_norms(module: tf.keras.layers.Layer, norm_act: Callable[..., tf.keras.layers.Layer]) -> None:
    """Replaces batch normalization and its activation in a built Model Garden head or layer by `norm_act`.

    Args:
      module: a head or decoder layer whose every batch normalization is followed by its one activation. It must be
        called again before its weights are used or saved: the new layers are built then.
      norm_act: callable returning a fresh layer that normalizes and activates, called as norm_act(name=...).
    """
    for layer in list(module._flatten_layers()):
        attributes = {name: value for name, value in vars(layer).items() if not name.startswith("_self_")}
        replaced = {name: _replaced(value, norm_act) for name, value in attributes.items()}
        inside = {name: value for name, value in replaced.items() if value is not attributes[name]}
        for name, value in inside.items():
            setattr(layer, name, value)
        for name in ("_activation", "_activation_fn"):
            if inside and name in attributes:
                setattr(layer, name, tf.identity)


def replace_output_norms(model: tf.keras.Model, norm_act: Callable[..., tf.keras.layers.Layer]) -> tf.keras.Model:
    """Copies a functional model, such as an FPN, with `norm_act(apply_act=False)` for each batch normalization."""

    def fresh(layer):
        if isinstance(layer, _BATCH_NORMS):
            return norm_act(apply_act=False, name=layer.name)
        return type(layer).from_config(layer.get_config())

    return tf.keras.models.clone_model(tf.keras.Model(model.input, model.output), clone_function=fresh)


def _replaced(value, norm_act):
    """The same object if there is no batch normalization in it."""
    if isinstance(value, _BATCH_NORMS):
        return norm_act(name=value.name)
    if isinstance(value, tf.keras.Sequential):
        parts = [_replaced(part, norm_act) for part in value.layers]
        if any(new is not old for new, old in zip(parts, value.layers)):
            followed = [isinstance(old, _BATCH_NORMS) for old in value.layers]
            dropped = [
                isinstance(part, tf.keras.layers.Activation) and i and followed[i - 1] for i, part in enumerate(parts)
            ]
            return tf.keras.Sequential([part for part, drop in zip(parts, dropped) if not drop], name=value.name)
    if isinstance(value, list):
        parts = [_replaced(part, norm_act) for part in value]
        if any(new is not old for new, old in zip(parts, value)):
            return parts
    return value
