"""An encoder's weights in single files that need no TensorFlow to be read: safetensors, and Keras' `.weights.h5`."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from tf_evonorm.atomic import atomic_path
from tf_evonorm.keras_generation import weight_names
from tf_evonorm.mistakes import Mistake

SAFETENSORS, H5 = ".safetensors", ".weights.h5"
_LAYERS = "layers"  # entry of the metadata of safetensors: names of the layers with weights, in their order


def is_weight_file(path: str) -> bool:
    """Whether the ending of a path asks for a single file of weights."""
    return path.endswith((SAFETENSORS, H5))


def write(encoder: tf.keras.Model, path: str) -> str:
    """Writes the weights of an encoder, so that the file appears completely or not at all.

    Args:
      encoder: a built functional `tf.keras.Model`.
      path: ends in `.safetensors` or `.weights.h5`; an existing file is replaced.

    Returns:
      The path.

    Raises:
      Mistake: if the package safetensors is not installed.
      Mistake: if the encoder has several parts, or two layers of one name.
    """
    if hasattr(encoder, "checkpoint_items"):
        parts = ", ".join(encoder.checkpoint_items)
        raise Mistake(
            f"a weight file holds one encoder. Received a model of the parts {parts}. "
            "Pass its `backbone`, or a path without an ending."
        )
    data = _keras_bytes(encoder) if path.endswith(H5) else _safetensors_bytes(encoder, path)
    with atomic_path(path) as partial, tf.io.gfile.GFile(partial, "wb") as file:
        file.write(data)
    return path


def variables(encoder: tf.keras.Model, path: str) -> tuple[dict, dict]:
    """What an encoder has and what a file holds, in the form in which they can be compared.

    Args:
      encoder: a built functional `tf.keras.Model`.
      path: of the file.

    Returns:
      Two dicts (the encoder's and the file's): key -> (name, array), a key the same where the weight is the same.

    Raises:
      FileNotFoundError: if there is no such file.
      Mistake: if the file is damaged or of another kind, or the package safetensors is not installed.
    """
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"path must be a file of weights. Received {path!r}, at which there is none.")
    with tf.io.gfile.GFile(path, "rb") as file:
        data = file.read()
    if path.endswith(H5):
        return _h5_variables(_keras_bytes(encoder), path), _h5_variables(data, path)
    own = {key: (name, weight.numpy()) for key, (name, weight) in table(encoder).items()}
    return own, _safetensors_variables(data, path, encoder)


def fill(encoder: tf.keras.Model, path: str, found: dict) -> None:
    """Assigns what `variables` has found in a file, after the comparison.

    Args:
      encoder: a built functional `tf.keras.Model`.
      path: of the file.
      found: key -> (name, array) of the file.
    """
    if path.endswith(H5):
        with tempfile.TemporaryDirectory() as folder:
            local = os.path.join(folder, f"encoder{H5}")
            tf.io.gfile.copy(path, local)
            encoder.load_weights(local)
        return
    for key, (_, weight) in table(encoder).items():
        weight.assign(found[key][1])


def table(encoder: tf.keras.Model) -> dict[tuple, tuple[str, Any]]:
    """(number of the layer, name in it) -> (full name, variable)."""
    found: dict[tuple, tuple[str, Any]] = {}
    for number, layer in enumerate(_weighted(encoder)):
        for name, weight in weight_names(layer):
            if (number, name) in found:
                raise Mistake(
                    f"weights of a layer must differ in their names. Received two {layer.name}/{name}. "
                    "Pass a path without an ending, which numbers them."
                )
            found[number, name] = (f"{layer.name}/{name}", weight)
    return found


def _weighted(encoder):
    return [layer for layer in encoder.layers if layer.weights]


def _safetensors_bytes(encoder, path):
    save = _safetensors(path).save
    arrays = {name: np.array(weight.numpy(), order="C") for name, weight in table(encoder).values()}
    layers = json.dumps([layer.name for layer in _weighted(encoder)])
    return save(arrays, metadata={_LAYERS: layers, "framework": "tf_pixpro"})


def _safetensors_variables(data, path, encoder):
    try:
        arrays = _safetensors(path).load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        layers = json.loads(metadata[_LAYERS]) if _LAYERS in metadata else [x.name for x in _weighted(encoder)]
        # Names of layers may hold slashes; the longest one that fits is meant.
        numbers = {name: number for number, name in sorted(enumerate(layers), key=lambda layer: len(layer[1]))}
    except Mistake:
        raise
    except Exception as error:  # the Rust library has an exception of its own, NumPy and JSON theirs
        raise Mistake(f"{path!r} must be a complete safetensors file of weights. Reading it gave: {error}") from error
    found = {}
    for name, array in arrays.items():
        owner = next((layer for layer in reversed(numbers) if name.startswith(f"{layer}/")), None)
        found[name if owner is None else (numbers[owner], name[len(owner) + 1 :])] = (name, array)
    return found


def _safetensors(path):
    try:
        import safetensors.numpy
    except ImportError as error:
        raise Mistake(f"{path!r} needs the package safetensors: pip install safetensors.") from error
    return safetensors.numpy


def _keras_bytes(encoder):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"encoder{H5}")
        encoder.save_weights(path)
        with open(path, "rb") as file:
            return file.read()


def _h5_variables(data, path):
    found = {}

    def keep(name, entry):
        if isinstance(entry, h5py.Dataset):
            found[name] = (name, entry[()])

    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, "weights.h5")
        with open(local, "wb") as file:
            file.write(data)
        try:
            with h5py.File(local) as file:
                file.visititems(keep)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise Mistake(f"{path!r} must be a complete .weights.h5 file of Keras. Reading it gave: {error}") from error
    return found
