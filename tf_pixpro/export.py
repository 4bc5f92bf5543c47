"""From a trained encoder or classifier to a SavedModel that serves it without this package, or to other formats."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Optional

import tensorflow as tf

from tf_evonorm.atomic import atomic_path
from tf_evonorm.mistakes import Mistake
from tf_pixpro import formats
from tf_pixpro.checkpoints import load_backbone
from tf_pixpro.pretext.model import PixPro
from tf_pixpro.views.augment import centre_view, denormalized, normalized

FORMATS = ("saved_model", *formats.FORMATS)


def export_encoder(
    model_or_checkpoint: tf.keras.Model | str | os.PathLike,
    path: str,
    *,
    encoder: Optional[tf.keras.Model] = None,
    image_size: tuple[int, int] = (224, 224),
    format: str = "saved_model",
    batch: Optional[int] = None,
    representative: Optional[tf.data.Dataset] = None,
) -> str:
    """Writes an encoder as a SavedModel that turns images into features, or as one file of another format.

    A SavedModel has two signatures, both with the same answer, a dict of float32 tensors: every level of the encoder
    under its own name ('2': [B, h, w, C], ...) and 'pooled' [B, C], the mean of the last level over its cells.

    - `serving_default`, input `image_bytes` [B] string: JPEG, PNG, BMP or (first frame of) GIF files of any sizes. Each
      is scaled, antialiased, until it covers `image_size`, and its centre is cut out. Bytes that are no image fail
      their request with InvalidArgumentError; the next request is answered.
    - `images`, input `images` [B, H, W, 3] float32: RGB in 0..255, any size that the encoder takes, not scaled or cut.

    Both normalise as the views of pre-training are. BatchNorm uses its running statistics.

    ONNX and TFLite hold the second of them for images of `image_size`. A `.keras` file holds the encoder itself, of
    normalized images, and a `.safetensors` file its weights (`tf_pixpro.load_backbone`).

    Args:
      model_or_checkpoint: a `PixPro`, an encoder, the path of a `.keras` file of either, or the path of a checkpoint
        (or of a folder with one) that is read into `encoder`.
      path: folder to be made, or a file that ends in the format's name. It appears whole or not at all.
      encoder: an encoder built as the one in the checkpoint; its weights are replaced. Only with the path of a
        checkpoint.
      image_size: (height, width) in pixels that encoded images are brought to.
      format: one of `FORMATS`.
      batch: images of each request, for ONNX and TFLite; any number by default.
      representative: for TFLite with integers of 8 bits instead of float32: finite dataset of {'image': [b, height,
        width, 3] float32 normalized} of `image_size`, as `tf_pixpro.data.labelled_dataset` makes it; a few hundred
        images, whose range of values the integers then span.

    Returns:
      The path.

    Raises:
      FileNotFoundError: if there is no file at the path that was given.
      Mistake: if what was given is no encoder, `path` is taken, the image size is not positive, a package is
        missing, or the format cannot hold the model.
    """
    path = os.fspath(path).rstrip("/")
    _check(path, image_size, format, batch, representative)
    encoder = _encoder(model_or_checkpoint, encoder)
    last = max(encoder.output)

    def features(views):
        levels = {level: tf.cast(values, tf.float32) for level, values in encoder(views, training=False).items()}
        return {**levels, "pooled": tf.reduce_mean(levels[last], axis=[1, 2])}

    if format != "saved_model":
        return _write(format, path, encoder, features, image_size, batch, representative)
    served = _serve(encoder, features, image_size, margin=1.0)
    return write_served(served, {"serving_default": served.encoded, "images": served.images}, path)


def export_classifier(
    classifier: tf.keras.Model,
    path: str,
    *,
    class_names: Sequence[str],
    image_size: tuple[int, int] = (224, 224),
    margin: float = 256 / 224,
    format: str = "saved_model",
    batch: Optional[int] = None,
    representative: Optional[tf.data.Dataset] = None,
) -> str:
    """Writes a classifier as a SavedModel that turns images into classes, or as one file of another format.

    A SavedModel has two signatures with the same answer: 'probabilities' [B, K] float32, 'label' [B] int64 and 'name'
    [B] string of the likeliest class.
    `serving_default` takes `image_bytes`, `images` takes `images`, both as in `export_encoder`.

    ONNX and TFLite give 'probabilities' and 'label' of images of `image_size`. The names are JSON in the metadata entry
    `class_names` of ONNX; `unzip model.tflite` finds them as `labels.txt`.

    Args:
      classifier: functional Keras model, normalized images [B, H, W, 3] -> logits [B, K].
      path: folder to be made, or a file that ends in the format's name. It appears whole or not at all.
      class_names: K strings.
      image_size: (height, width) in pixels that encoded images are brought to.
      margin: the short side of an encoded image is scaled to so many times that size before the centre is cut out.
      format, batch, representative: see `export_encoder`.

    Returns:
      The path.

    Raises:
      Mistake: if the names are not as many as the classes, or as in `export_encoder`.
    """
    path = os.fspath(path).rstrip("/")
    _check(path, image_size, format, batch, representative)
    if len(class_names) != classifier.output_shape[-1]:
        raise Mistake(
            f"class_names must name each of the {classifier.output_shape[-1]} classes. Received "
            f"{len(class_names)} names."
        )
    names = tf.constant(list(class_names))

    def numbers(views):
        probabilities = tf.nn.softmax(tf.cast(classifier(views, training=False), tf.float32))
        return {"probabilities": probabilities, "label": tf.argmax(probabilities, axis=-1)}

    if format != "saved_model":
        plain = tf.keras.Model(classifier.inputs, classifier.outputs[0])  # without a class of Model Garden
        return _write(format, path, plain, numbers, image_size, batch, representative, class_names)

    def answer(views):
        found = numbers(views)
        return {**found, "name": tf.gather(names, found["label"])}

    served = _serve(classifier, answer, image_size, margin)
    return write_served(served, {"serving_default": served.encoded, "images": served.images}, path)


def write_served(served: tf.Module, signatures: dict, path: str) -> str:
    """Saves a module, so that the folder appears whole or not at all; returns the path.

    Raises:
      Mistake: if `path` is taken.
    """
    path = os.fspath(path).rstrip("/")
    _check_free(path)
    with atomic_path(path) as partial:
        tf.saved_model.save(served, partial, signatures=signatures)
    return path


def _write(format, path, model, answer, image_size, batch, representative, class_names=()):
    """Writes another format than SavedModel; `answer` takes normalized images."""
    if representative is not None:
        representative = representative.map(lambda rows: denormalized(rows["image"]))
    exported = formats.Exported(
        model,
        lambda images: answer(normalized(images)),
        _own_size(model, image_size),
        batch,
        tuple(class_names),
        representative,
    )
    return formats.write(format, exported, path)


def _check(path, image_size, format, batch, representative):
    if format == "saved_model":
        _check_free(path)
        if batch is not None or representative is not None:
            raise Mistake("batch and representative images are for other formats than saved_model. Leave them out.")
    else:
        formats.check(format, path, batch, representative)
    if len(image_size) != 2 or min(image_size) < 1:
        raise Mistake(
            f"image_size must be (height, width), both positive. Received {image_size!r}. Pass e.g. (224, 224)."
        )


def _check_free(path):
    if not path:
        raise Mistake("path must name a folder. Received an empty path. Pass e.g. 'workdir/saved_model'.")
    if tf.io.gfile.exists(path) and not (tf.io.gfile.isdir(path) and not tf.io.gfile.listdir(path)):
        raise Mistake(f"path must be free. Received {path!r}, which exists. Remove it or pass another.")


def _encoder(source, encoder):
    is_path = isinstance(source, (str, os.PathLike))
    keras_file = is_path and os.fspath(source).endswith(".keras")
    if encoder is not None and (not is_path or keras_file):
        raise Mistake(f"encoder goes only with the path of a checkpoint. Received it with {source!r}. Leave it out.")
    if keras_file:
        return _encoder(_load_keras(os.fspath(source)), None)
    if is_path:
        if encoder is None:
            raise Mistake(
                f"a checkpoint holds weights only. Received {os.fspath(source)!r} alone. Pass encoder= to read it into."
            )
        load_backbone(encoder, source)
        return _encoder(encoder, None)
    encoder = source.encoder if isinstance(source, PixPro) else source
    if not isinstance(getattr(encoder, "output", None), dict) or not encoder.inputs:
        raise Mistake(f"an encoder is a functional Keras model from images to a dict of levels. Received {source!r}.")
    return encoder


def _load_keras(path):
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"path must be a .keras file. Received {path!r}, at which there is none.")
    try:
        return tf.keras.models.load_model(path, compile=False)
    except (TypeError, ValueError, OSError) as error:
        raise Mistake(
            f"{path!r} must be a .keras file whose layers' package is imported. Loading it gave: {error}"
        ) from error


def _serve(model, answer, image_size, margin):
    """A module with the model's variables and two functions, but no Keras object: loading it needs no Keras.

    Args:
      model: takes normalized images.
      answer: normalized images -> what is served.
      image_size, margin: of encoded images, where the model's own size is not fixed.
    """
    size = (model.inputs[0].shape[1], model.inputs[0].shape[2])
    image_size = _own_size(model, image_size)

    def encoded(image_bytes):
        spec = tf.TensorSpec([*image_size, 3], tf.float32)

        def view(one):
            return centre_view(one, image_size, margin, exif=True, pillow=False)

        return answer(tf.map_fn(view, image_bytes, fn_output_signature=spec))

    def of_colours(images):
        return answer(normalized(images))

    served = tf.Module(name=model.name)
    served.weights = model.weights
    served.encoded = tf.function(encoded, input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    colours = tf.TensorSpec([None, *size, 3], tf.float32, "images")
    served.images = tf.function(of_colours, input_signature=[colours])
    return served


def _own_size(model, image_size):
    """(height, width): the model's own where it is fixed, else what was asked."""
    return tuple(fixed or int(asked) for fixed, asked in zip(model.inputs[0].shape[1:3], image_size))
