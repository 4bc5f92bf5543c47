"""A trained model in one file of another format than SavedModel: ONNX, TFLite (LiteRT), `.keras`, safetensors."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

import tensorflow as tf

from tf_evonorm.atomic import atomic_path
from tf_evonorm.keras_generation import variables
from tf_evonorm.mistakes import Mistake
from tf_pixpro.checkpoints import save_backbone

_OPSET = 17  # of ONNX; runtimes of 2022 and later read it


@dataclasses.dataclass(frozen=True)
class Exported:
    """What goes into a file.

    Attributes:
      model: functional Keras model of normalized images.
      answer: images [B, height, width, 3] float32 in 0..255 -> dict of numeric tensors; what graphs of ONNX and TFLite
        compute.
      image_size: (height, width) of these images.
      batch: B, or None where each request chooses it.
      class_names: of a classifier; they are put into files of ONNX and TFLite.
      representative: for TFLite, a finite dataset of images as `answer` takes them: integers of 8 bits take the ranges
        that they span. None keeps float32.
    """

    model: tf.keras.Model
    answer: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    image_size: tuple[int, int]
    batch: Optional[int] = None
    class_names: Sequence[str] = ()
    representative: Optional[tf.data.Dataset] = None

    @property
    def shape(self) -> list[Optional[int]]:
        """Of the images."""
        return [self.batch, *self.image_size, 3]


def check(name: str, path: str, batch: Optional[int] = None, representative: Optional[tf.data.Dataset] = None) -> None:
    """Refuses what `write` cannot do, before anything is built.

    Raises:
      Mistake: if there is no such format, the path ends otherwise or is taken, a batch is fixed or images are given
        where they mean nothing, or a package is missing.
    """
    if name not in FORMATS:
        raise Mistake(f"format must be one of saved_model, {', '.join(FORMATS)}. Received {name!r}.")
    if not path.endswith(f".{name}"):
        raise Mistake(f"path must end in .{name} for that format. Received {path!r}. Pass '{path}.{name}'.")
    if tf.io.gfile.exists(path):
        raise Mistake(f"path must be free. Received {path!r}, which exists. Remove it or pass another.")
    if batch is not None and (name not in ("onnx", "tflite") or batch < 1):
        raise Mistake(f"batch is a positive number, for onnx and tflite. Received batch={batch} for {name}.")
    if representative is not None and name != "tflite":
        raise Mistake(f"representative images are for tflite. Received them for {name}. Leave them out.")
    if name == "onnx":
        _converter()


def write(name: str, exported: Exported, path: str) -> str:
    """Writes a file that appears whole or not at all; returns the path.

    Args:
      name: key of `FORMATS`.
      exported: what goes into it.
      path: ends in a point and that name.

    Raises:
      Mistake: see `check`; or the format has no form for something in the model.
    """
    check(name, path, exported.batch, exported.representative)
    tf.io.gfile.makedirs(os.path.dirname(path) or ".")
    FORMATS[name](exported, path)
    return path


def _onnx(exported, path):
    onnx, convert = _converter()
    function, specification, _ = _graph(exported)
    try:
        made, _ = convert.from_function(function, input_signature=[specification], opset=_OPSET)
        onnx.checker.check_model(made)
    except Exception as error:  # tf2onnx raises what it meets
        raise _not_convertible("ONNX", error) from error
    for value in (*made.graph.input, *made.graph.output):
        first = value.type.tensor_type.shape.dim
        if exported.batch is None and first:
            first[0].dim_param = "batch"  # instead of a number that the converter has made up
    onnx.helper.set_model_props(made, {"class_names": json.dumps(list(exported.class_names))})
    _keep(made.SerializeToString(), path)


def _converter():
    try:
        import onnx
        import tf2onnx.convert
    except (ImportError, AttributeError) as error:  # the second: onnx 1.19 with the ml_dtypes of TensorFlow 2.15
        raise Mistake(f"format 'onnx' needs pip install 'tf-pixpro[onnx]'. Importing it gave: {error}") from error
    return onnx, tf2onnx.convert


def _tflite(exported, path):
    function, _, module = _graph(exported)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    if exported.representative is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _samples(exported.representative, exported.batch or 1)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        data = converter.convert()
    except Mistake:
        raise
    except Exception as error:  # ConverterError, and whatever the calibration meets
        raise _not_convertible("TFLite", error) from error
    _keep(data, path, "\n".join(exported.class_names))


def _samples(representative: tf.data.Dataset, size: int) -> Iterator[list]:
    found = False
    for images in representative.unbatch().batch(size, drop_remainder=True):
        found = True
        yield [images]
    if not found:
        raise Mistake(f"int8 needs at least {size} representative images. Received fewer. Pass some hundreds.")


def _graph(exported):
    """(function of the images, their specification, the module that holds its variables)."""
    specification = tf.TensorSpec(exported.shape, tf.float32, "images")
    function = tf.function(exported.answer, input_signature=[specification])
    module = tf.Module()
    module.weights = variables(exported.model.weights)  # Keras 3 wraps them, and the converter must find them
    module.function = function
    return function, specification, module


def _keras(exported, path):
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, "model.keras")
        exported.model.save(local)
        with open(local, "rb") as file:
            _keep(file.read(), path)


def _keep(data: bytes, path: str, labels: str = "") -> None:
    """Writes a file; labels become a zip's `labels.txt` behind its data, as TFLite's metadata tools have it."""
    buffer = io.BytesIO(data)
    if labels:
        with zipfile.ZipFile(buffer, "a") as zipped:
            zipped.writestr("labels.txt", labels)
    with atomic_path(path) as partial, tf.io.gfile.GFile(partial, "wb") as file:
        file.write(buffer.getvalue())


def _not_convertible(kind, error):
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return Mistake(f"{kind} has no form for something in this model. Export a SavedModel. Its converter said: {reason}")


# Name of the format, which is also the ending of its files -> (what goes into it, path) -> None.
FORMATS: dict[str, Callable[[Exported, str], Any]] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "keras": _keras,
    "safetensors": lambda exported, path: save_backbone(exported.model, path),
}
