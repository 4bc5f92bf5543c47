"""From a trained encoder to a SavedModel that serves its features without this package."""

from __future__ import annotations

import os
import uuid
from typing import Optional

import tensorflow as tf

from tf_pixpro.checkpoints import load_backbone
from tf_pixpro.model import PixPro

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


def export_encoder(
    model_or_checkpoint,
    path: str,
    *,
    encoder: Optional[tf.keras.Model] = None,
    image_size=(224, 224),
    mean=MEAN,
    deviation=DEVIATION,
) -> str:
    """Writes an encoder as a SavedModel that turns images into features.

    Two signatures, both with the same answer, a dict of float32 tensors: every level of the encoder under its own name
    ('2': [B, h, w, C], ...) and 'pooled' [B, C], the mean of the last level over its cells.

    - `serving_default`, input `image_bytes` [B] string: JPEG, PNG, BMP or (first frame of) GIF files of any sizes. Each is scaled,
      antialiased, until it covers `image_size`, and its centre is cut out. Bytes that are no image fail their request with
      InvalidArgumentError; the next request is answered.
    - `images`, input `images` [B, H, W, 3] float32: RGB in 0..255, any size that the encoder takes, not scaled or cut.

    Both divide by 255 and normalise with `mean` and `deviation`, as the augmentations of pre-training do. BatchNorm uses its
    running statistics.

    Args:
      model_or_checkpoint: a `PixPro`, an encoder, the path of a `.keras` file of either, or the path of a checkpoint (or of a folder
        with one) that is read into `encoder`.
      path: folder to be made. It appears whole or not at all.
      encoder: an encoder built as the one in the checkpoint; its weights are replaced. Only with the path of a checkpoint.
      image_size: (height, width) in pixels that encoded images are brought to.
      mean, deviation: per channel of RGB in 0..1.

    Returns:
      The path.

    Raises:
      FileNotFoundError: if there is no file at the path that was given.
      ValueError: if what was given is no encoder, `path` is taken, or the image size is not positive.
    """
    path = os.fspath(path).rstrip("/")
    _check_free(path)
    if len(image_size) != 2 or min(image_size) < 1:
        raise ValueError(
            f"image_size must be (height, width), both positive. Received {image_size!r}. Pass e.g. (224, 224)."
        )
    served = _serve(_encoder(model_or_checkpoint, encoder), tuple(map(int, image_size)), mean, deviation)
    signatures = {"serving_default": served.encoded, "images": served.images}
    partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
    try:
        tf.saved_model.save(served, partial, signatures=signatures)
        if tf.io.gfile.isdir(path):
            tf.io.gfile.rmtree(path)
        tf.io.gfile.rename(partial, path)
    finally:
        if tf.io.gfile.exists(partial):
            tf.io.gfile.rmtree(partial)
    return path


def _check_free(path):
    if not path:
        raise ValueError("path must name a folder. Received an empty path. Pass e.g. 'workdir/saved_model'.")
    if tf.io.gfile.exists(path) and not (tf.io.gfile.isdir(path) and not tf.io.gfile.listdir(path)):
        raise ValueError(f"path must be free. Received {path!r}, which exists. Remove it or pass another.")


def _encoder(source, encoder):
    is_path = isinstance(source, (str, os.PathLike))
    keras_file = is_path and os.fspath(source).endswith(".keras")
    if encoder is not None and (not is_path or keras_file):
        raise ValueError(f"encoder goes only with the path of a checkpoint. Received it with {source!r}. Leave it out.")
    if keras_file:
        return _encoder(_load_keras(os.fspath(source)), None)
    if is_path:
        if encoder is None:
            raise ValueError(
                f"a checkpoint holds weights only. Received {os.fspath(source)!r} alone. Pass encoder= to read it into."
            )
        load_backbone(encoder, source)
        return _encoder(encoder, None)
    encoder = source.encoder if isinstance(source, PixPro) else source
    if not isinstance(getattr(encoder, "output", None), dict) or not encoder.inputs:
        raise ValueError(
            f"an encoder is a functional Keras model from images to a dict of levels. Received {source!r}."
        )
    return encoder


def _load_keras(path):
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"path must be a .keras file. Received {path!r}, at which there is none.")
    try:
        return tf.keras.models.load_model(path, compile=False)
    except (TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"{path!r} must be a .keras file whose layers' package is imported. Loading it gave: {error}"
        ) from error


def _serve(encoder, image_size, mean, deviation):
    """A module that holds the encoder's variables and the two functions, but no Keras object, so that nothing of Keras is needed."""
    size = (encoder.inputs[0].shape[1], encoder.inputs[0].shape[2])
    if size != (None, None):
        image_size = tuple(fixed or asked for fixed, asked in zip(size, image_size))
    last = max(encoder.output)

    def features(images):
        normalised = (images / 255.0 - tf.constant(mean)) / tf.constant(deviation)
        levels = encoder(normalised, training=False)
        answer = {level: tf.cast(values, tf.float32) for level, values in levels.items()}
        return {**answer, "pooled": tf.reduce_mean(answer[last], axis=[1, 2])}

    def decode(image_bytes):
        image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
        return _cover(tf.ensure_shape(image, [None, None, 3]), image_size)

    def encoded(image_bytes):
        images = tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec([*image_size, 3], tf.float32))
        return features(images)

    served = tf.Module(name="encoder")
    served.weights = encoder.weights
    served.encoded = tf.function(encoded, input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    served.images = tf.function(features, input_signature=[tf.TensorSpec([None, *size, 3], tf.float32, "images")])
    return served


def _cover(image, size):
    """An image [h, w, 3] uint8 -> the centre of it at the given size, as large as fits, float32 in 0..255."""
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    window = tf.minimum(sides, tf.reduce_min(sides / tf.constant(size, tf.float32)) * tf.constant(size, tf.float32))
    window = tf.maximum(tf.cast(tf.round(window), tf.int32), 1)
    top, left = tf.unstack((tf.shape(image)[:2] - window) // 2)
    centre = tf.image.crop_to_bounding_box(image, top, left, window[0], window[1])
    return tf.image.resize(centre, size, antialias=True)
