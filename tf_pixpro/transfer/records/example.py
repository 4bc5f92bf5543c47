"""One annotated image as the `tf.train.Example` that Model Garden's decoders take."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import tensorflow as tf
from official.vision.data import tfrecord_lib
from pycocotools import mask as run_lengths

from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer.records.annotations import AnnotatedImage, Problems
from tf_pixpro.transfer.records.class_masks import class_mask
from tf_pixpro.transfer.records.image_files import read, stored_image

_feature = tfrecord_lib.convert_to_feature


class Contents:
    """The files of an annotated image: their bytes, or why they cannot be read.

    Args:
      image: whose files are read.
    """

    def __init__(self, image: AnnotatedImage):
        self.image, self.mask = _content(image.path), _content(image.classes) if image.classes else None

    def digest(self) -> bytes:
        """SHA-256 of the files' contents."""
        parts = [part if isinstance(part, bytes) else repr(type(part)).encode() for part in (self.image, self.mask)]
        return b"".join(hashlib.sha256(part).digest() for part in parts)


def _content(path):
    try:
        return read(path)
    except tf.errors.OpError as error:
        return error


def tf_example(
    image: AnnotatedImage, contents: Contents, problems: Problems, exif: bool = True, bits: int = 16
) -> tf.train.Example | None:
    """One image as Model Garden's decoders take it, or None, reported, if its files are broken.

    Args:
      image: what is annotated. Where one object has an outline, all must; see `outlined`.
      contents: its files.
      problems: gets what is wrong.
      exif, bits: as in `image_files.stored_image`.

    Returns:
      A `tf.train.Example` with image/encoded, image/height, image/width, image/source_id;
      image/object/bbox/{xmin,xmax,ymin,ymax} (fractions), class/label, area, is_crowd and, with outlines, mask (PNG);
      image/segmentation/class/encoded (PNG).

    Raises:
      Mistake: if a mask holds values that are no class.
    """
    try:
        encoded, kind, size = _image(image, contents.image, exif, bits)
    except _LeftOut as reason:
        problems.add(reason.kind, image.where, f"{reason} Left out.")
        return None
    height, width = size
    features = tfrecord_lib.image_info_to_feature_dict(
        height, width, image.file_name or os.path.basename(image.path), image.number, encoded, kind
    )
    if image.classes:
        try:
            mask = _class_mask(image, contents.mask, size)
        except _LeftOut as reason:
            problems.add(reason.kind, image.where, f"{reason} Left out.")
            return None
        features["image/segmentation/class/encoded"] = _feature(tfrecord_lib.encode_mask_as_png(mask))
    features.update(_object_features(image.objects, size, problems))
    return tf.train.Example(features=tf.train.Features(feature=features))


class _LeftOut(Exception):
    """Why an image is left out, and what that counts as."""

    def __init__(self, kind, reason):
        super().__init__(reason)
        self.kind = kind


def _bytes(content, path):
    if isinstance(content, bytes):
        return content
    if isinstance(content, tf.errors.NotFoundError):
        raise _LeftOut("missing file", f"image and mask must be readable: there is no {path}.")
    raise _LeftOut("unreadable file", f"image and mask must be readable: {' '.join(str(content).split())}.")


def _image(image, content, exif, bits):
    """Bytes, format and (height, width) of an image that TensorFlow can read."""
    image_bytes = _bytes(content, image.path)
    try:
        encoded, kind, size = stored_image(image_bytes, exif, bits)
    except Mistake as error:
        raise _LeftOut("unreadable file", f"{image.path} must be readable: {error}") from error
    if image.size and size != tuple(image.size):
        hint = ""
        if exif and size == tuple(image.size)[::-1]:
            hint = " If it was annotated without its EXIF orientation, pass --exif=ignore."
        raise _LeftOut(
            "wrong size",
            f"an image must have the size of its annotation, {tuple(image.size)}. Received {size} (height, "
            f"width).{hint}",
        )
    return encoded, kind, size


def _class_mask(image, content, size):
    mask_bytes = _bytes(content, image.classes)
    try:
        mask = class_mask(mask_bytes, image.codes, image.classes)
    except Mistake:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on damaged files
        reason = " ".join(str(error).split())
        raise _LeftOut("unreadable file", f"{image.classes} must be readable: {reason}.") from error
    if mask.shape != size:
        raise _LeftOut("wrong size", f"a mask must have the size of its image, {size}. Received {mask.shape}.")
    return mask


def _object_features(objects, size, problems):
    height, width = size
    kept, masks = [], []
    for one in objects:
        if one.segmentation is not None:
            try:
                mask = outline_mask(one.segmentation, size)
                masks.append(tfrecord_lib.encode_mask_as_png(mask))
            except (ValueError, TypeError, OverflowError) as error:
                problems.add("bad mask", one.where, f"run lengths must fill the image: {error}. Left out.")
                continue
            if not mask.any():
                problems.add("empty mask", one.where, "an outline must cover a pixel of its image. Kept as it is.")
        kept.append(one)
    x1, y1, x2, y2 = np.array([one.box for one in kept], np.float64).reshape(-1, 4).T
    floats = {"bbox/xmin": x1 / width, "bbox/xmax": x2 / width, "bbox/ymin": y1 / height, "bbox/ymax": y2 / height}
    floats["area"] = [one.area for one in kept]
    features = {f"image/object/{key}": _feature(list(value), "float_list") for key, value in floats.items()}
    features["image/object/class/label"] = _feature([one.label for one in kept], "int64_list")
    features["image/object/is_crowd"] = _feature([int(one.crowd) for one in kept], "int64_list")
    if len(masks) == len(kept):
        features["image/object/mask"] = _feature(masks, "bytes_list")
    return features


def outline_mask(segmentation: dict | list, size: tuple[int, int]) -> np.ndarray:
    """COCO's polygons or run lengths as a mask [height, width] uint8 of 0 and 1."""
    height, width = size
    if isinstance(segmentation, list):
        segmentation = run_lengths.merge(run_lengths.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = run_lengths.frPyObjects(segmentation, height, width)
    return run_lengths.decode(segmentation)
