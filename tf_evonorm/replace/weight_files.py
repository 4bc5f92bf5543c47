"""Files in Keras' older HDF5 format that hold the weights of a model from before its normalizations were replaced."""

from __future__ import annotations

import collections
import functools
import os
from typing import Any

import h5py
import tensorflow as tf

from tf_evonorm.mistakes import Mistake


def guard(model: tf.keras.Model) -> None:
    """Lets `model.load_weights` refuse files of the model with its old normalizations.

    Keras compares counts and shapes alone: the four variables of a BatchNormalization fit EvoNormB0, and its moving
    mean would become v. The method of this object is changed; a model that is loaded from a file has Keras' own again.
    """

    @functools.wraps(type(model).load_weights)
    def load_weights(filepath: Any, *arguments: Any, **options: Any) -> Any:
        refuse_old_normalizations(model, filepath)
        return type(model).load_weights(model, filepath, *arguments, **options)

    model.load_weights = load_weights


def refuse_old_normalizations(model: tf.keras.Model, path: Any) -> None:
    """Refuses an HDF5 file with moving means in layers that have none in a model.

    Files of other formats, which find their variables by the layer's class or by name, pass.

    Raises:
        Mistake: naming the first such layer.
    """
    path = os.fspath(path)
    if path.endswith(".weights.h5") or not path.endswith((".h5", ".hdf5")) or not os.path.isfile(path):
        return
    layers = {layer.name: layer for layer in model.layers}
    with h5py.File(path) as file:
        group = file.get("model_weights", file)
        for name in group:
            stored = _leaves(map(_text, group[name].attrs.get("weight_names", ())))
            own = _leaves(weight.name for weight in layers[name].weights) if name in layers else stored
            if stored["moving_mean"] > own["moving_mean"]:
                raise Mistake(
                    "weights must be those of the model with its new layers. Received "
                    f"{path!r}, in which {name!r} has a moving mean, which {type(layers[name]).__name__} has not. Load "
                    "them into the model from before, and call replace_norm_act on it."
                )


def _text(name):
    return name.decode() if isinstance(name, bytes) else str(name)


def _leaves(names):
    """How many variables have each last name, as gamma in bn/gamma:0."""
    return collections.Counter(name.rpartition("/")[2].partition(":")[0] for name in names)
