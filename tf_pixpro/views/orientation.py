"""EXIF orientation: where JPEG and PNG keep it, in TensorFlow and in Python, and how it turns pixels upright.

Source: EXIF 2.32 section 4.6.4 (tag 274); JPEG's first APP1 segment of the kind Exif and PNG's chunk eXIf carry it.
"""

from __future__ import annotations

import struct

import numpy as np
import tensorflow as tf
from PIL import Image

ORIENTATION = 0x0112


def jpeg_orientation(image_bytes: tf.Tensor) -> tf.Tensor:
    """Scalar int32, the orientation 1..8 of a JPEG; 1 where there is none or it is damaged."""
    return _tiff_orientation(_jpeg_exif(image_bytes))


def png_orientation(image_bytes: tf.Tensor) -> tf.Tensor:
    """Scalar int32, the orientation 1..8 of a PNG; 1 where there is none or it is damaged."""
    return _tiff_orientation(_png_exif(image_bytes))


def upright(image: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """[h, w, 3] stored -> [H, W, 3] as displayed."""

    def rotated():
        upright = tf.cond(number >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        across, down = tf.reduce_any(number == [2, 3, 6, 7]), tf.reduce_any(number == [3, 4, 7, 8])
        upright = tf.cond(across, lambda: upright[:, ::-1], lambda: upright)
        return tf.cond(down, lambda: upright[::-1], lambda: upright)

    return tf.ensure_shape(tf.cond(number > 1, rotated, lambda: image), [None, None, 3])


def array_orientation(image: Image.Image, image_bytes: bytes) -> int:
    """1..8 of an image that Pillow opened, by the rule of `jpeg_orientation`."""
    if image.format == "TIFF":
        return 1  # Pillow applies it while loading
    exif, found = Image.Exif(), _chunk(image_bytes) if image.format == "PNG" else image.info.get("exif", b"")
    if not found.removeprefix(b"Exif\0\0"):
        return 1
    try:
        exif.load(found)
        number = exif.get(ORIENTATION, 1)
    except Exception:  # damaged metadata is no reason to refuse the pixels
        return 1
    return number if isinstance(number, int) and 1 <= number <= 8 else 1


def upright_array(array: np.ndarray, number: int) -> np.ndarray:
    """[h, w, 3] stored -> [H, W, 3] as displayed."""
    array = array.transpose(1, 0, 2) if number >= 5 else array
    array = array[:, ::-1] if number in (2, 3, 6, 7) else array
    return np.ascontiguousarray(array[::-1] if number in (3, 4, 7, 8) else array)


def big_endian(text: tf.Tensor) -> tf.Tensor:
    """[...] strings of two or four bytes -> int32."""
    values = tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32)
    return tf.reduce_sum(values * 256 ** tf.range(tf.shape(values)[-1] - 1, -1, -1), axis=-1)


def _jpeg_exif(image_bytes):
    """The TIFF structure in a JPEG's first EXIF segment, or an empty string."""
    length = tf.strings.length(image_bytes)

    def at(position, count):
        return tf.strings.substr(image_bytes, tf.minimum(position, length), count)

    def is_exif(position):
        return tf.equal(at(position + 1, 1), b"\xe1") & tf.equal(at(position + 4, 6), b"Exif\0\0")

    def continues(position):
        code = at(position + 1, 1)
        ended = tf.equal(code, b"\xda") | tf.equal(code, b"\xd9")
        return (position + 10 <= length) & tf.equal(at(position, 1), b"\xff") & ~ended & ~is_exif(position)

    def step(position):
        padding = tf.equal(at(position + 1, 1), b"\xff")
        return tf.where(padding, position + 1, position + 2 + tf.maximum(big_endian(at(position + 2, 2)), 2))

    (position,) = tf.while_loop(continues, lambda p: (step(p),), (tf.constant(2),))
    inside = (position + 10 <= length) & is_exif(position)
    return tf.cond(inside, lambda: at(position + 10, big_endian(at(position + 2, 2)) - 8), lambda: tf.constant(b""))


def _png_exif(image_bytes):
    """The content of a PNG's eXIf chunk, or an empty string."""
    length = tf.strings.length(image_bytes)

    def at(position, count):
        return tf.strings.substr(image_bytes, tf.minimum(position, length), count)

    def continues(position):
        return (position >= 8) & (position + 12 <= length) & tf.not_equal(at(position + 4, 4), b"eXIf")

    def step(position):
        return position + 12 + tf.maximum(big_endian(at(position, 4)), 0)

    (position,) = tf.while_loop(continues, lambda p: (step(p),), (tf.constant(8),))
    inside = (position >= 8) & (position + 12 <= length)
    return tf.cond(inside, lambda: at(position + 8, big_endian(at(position, 4))), lambda: tf.constant(b""))


def _tiff_orientation(exif):
    """Scalar int32: tag 274 of the first directory; 1 where there is none."""

    def parsed():
        data = tf.cast(tf.io.decode_raw(exif, tf.uint8), tf.int32)
        data = tf.pad(data, [[0, 4]])
        last = tf.size(data) - 4
        little = tf.equal(tf.strings.substr(exif, 0, 2), b"II")

        def number(positions, count):
            pieces = tf.gather(data, tf.clip_by_value(positions, 0, last)[..., None] + tf.range(count))
            pieces = tf.where(little, pieces[..., ::-1], pieces)
            return tf.reduce_sum(pieces * 256 ** tf.range(count - 1, -1, -1), axis=-1)

        directory = number(tf.constant(4), 4)
        entries = directory + 2 + 12 * tf.range(number(directory, 2))
        complete = entries + 12 <= last
        found = tf.boolean_mask(number(entries + 8, 2), complete & (number(entries, 2) == ORIENTATION))
        value = tf.concat([found, [1]], 0)[0]
        return tf.where((value >= 1) & (value <= 8), value, 1)

    return tf.cond(tf.strings.length(exif) >= 8, parsed, lambda: tf.constant(1))


def _chunk(image_bytes, name=b"eXIf"):
    """The content of a PNG's first chunk of a name, which may stand behind the pixels."""
    position = 8
    while position + 12 <= len(image_bytes):
        (length,) = struct.unpack_from(">I", image_bytes, position)
        if image_bytes[position + 4 : position + 8] == name:
            return image_bytes[position + 8 : position + 8 + length]
        position += 12 + length
    return b""
