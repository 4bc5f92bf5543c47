"""From the bytes of an image file to [H, W, 3] uint8: one rule for records, training and serving.

The rule, whatever the format (content decides, never the file name):

- Gray becomes three equal channels; a palette is looked up; 1-bit is 0 and 255; CMYK is converted as in Pillow.
- Alpha is dropped: the stored colours stay, they are not blended with a background.
- 16 bits per channel are scaled by the range of the type, 0..65535 to 0..255, by taking the upper byte. `bits=12` says
  that values use 12 of the 16 bits (X-rays, microscopes): 0..4095 to 0..255, larger values become 255.
- 32-bit integers and floats have no range to scale by and are refused.
- Only the first frame of an animation is decoded.
- `exif=True` rotates and flips the image upright, as viewers and labelling tools do. The orientation of a TIFF belongs
  to its format and is always applied. An orientation that only XMP names is ignored.

TensorFlow decodes JPEG (with `dct_method="INTEGER_ACCURATE"` equal to Pillow), PNG and plain BMP. Everything else that
Pillow opens (WebP, TIFF, AVIF, JPEG 2000, GIF, run-length or 1-bit BMP, PNM, ...) goes through `tf.numpy_function`.
That path holds Python's interpreter lock outside Pillow's own loops, so parallel readers wait for each other, and it
cannot be stored in a SavedModel: `pillow=False` leaves it out. Such files then fail, except GIF (there, transparent
pixels become black) and what else the installed TensorFlow decodes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import threading
from collections.abc import Iterator
from typing import Optional

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_evonorm.mistakes import Mistake
from tf_pixpro.views.orientation import (
    array_orientation,
    big_endian,
    jpeg_orientation,
    png_orientation,
    upright,
    upright_array,
)

MAX_PIXELS = 178_956_970
"""Pixels above which `decode_array` refuses, the limit at which Pillow suspects a decompression bomb."""
# Formats with a signature that run no other program (EPS does).
_FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "GIF",
    "BMP",
    "DIB",
    "WEBP",
    "TIFF",
    "AVIF",
    "HEIF",
    "JPEG2000",
    "PPM",
    "ICO",
    "PCX",
    "SGI",
)
_PNG = b"\x89PNG\r\n\x1a\n"
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_opening = threading.Lock()


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    Attributes:
      format: Pillow's name of the format, such as 'JPEG' or 'PNG'.
      mode: Pillow's mode, such as 'RGB', 'L' or 'I;16'.
      height, width: in pixels, as stored.
      orientation: 1..8, how EXIF says that the stored pixels are to be shown; 1 is as they are.
    """

    format: str
    mode: str
    height: int
    width: int
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) of the image as displayed."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


@tf.autograph.experimental.do_not_convert
def decode_image(image_bytes: tf.Tensor, exif: bool = True, bits: int = 16, pillow: bool = True) -> tf.Tensor:
    """Decodes an image as a TensorFlow operation, for tf.data and SavedModels.

    Args:
      image_bytes: scalar string, the content of an image file.
      exif: whether to turn the image upright by its EXIF orientation (JPEG, PNG, WebP).
      bits: how many bits of 16-bit channels are used, 9..16.
      pillow: whether formats that TensorFlow does not read, or reads wrongly, go through Pillow; False for SavedModels.

    Returns:
      [H, W, 3] uint8.

    Raises:
      Mistake: bits is out of range.
      tf.errors.InvalidArgumentError: when run in a graph, if the bytes cannot be decoded.
      Mistake: likewise, when run eagerly and through Pillow.
    """
    _check_bits(bits)
    image = tf.cond(
        tf.io.is_jpeg(image_bytes),
        lambda: tf.io.decode_jpeg(image_bytes, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: _decode_other(image_bytes, bits, pillow),
    )
    image = tf.ensure_shape(image, [None, None, 3])
    return upright(image, orientation(image_bytes, pillow)) if exif else image


def decode_array(
    image_bytes: bytes, exif: bool = True, bits: int = 16, max_pixels: Optional[int] = MAX_PIXELS
) -> np.ndarray:
    """Decodes an image by Pillow, for programs that write records; the values of `decode_image`.

    Args:
      image_bytes: the content of an image file.
      exif: whether to turn the image upright by its EXIF orientation.
      bits: how many bits of 16-bit channels are used, 9..16.
      max_pixels: largest height * width; None decodes whatever fits into memory.

    Returns:
      [H, W, 3] uint8.

    Raises:
      Mistake: bits is out of range.
      Mistake: the bytes are no image, or one that cannot be decoded, is too large or has no range to scale by.
    """
    _check_bits(bits)
    with _opened(image_bytes) as image:
        pixels = image.width * image.height
        if max_pixels is not None and pixels > max_pixels:
            raise Mistake(
                f"an image may have {max_pixels} pixels. Received {image.width}x{image.height}, {pixels} pixels. "
                "Make it smaller, cut it into tiles, or raise max_pixels (3 bytes of memory a pixel)."
            )
        number = array_orientation(image, image_bytes)
        array = _to_rgb(image, bits, image_bytes)
    return upright_array(array, number) if exif else array


def read_header(image_bytes: bytes) -> ImageHeader:
    """Reads the header of an image without decoding it, whatever its size.

    Raises:
      Mistake: Pillow knows no image that begins with these bytes.
    """
    with _opened(image_bytes) as image:
        format_name = "JPEG" if image.format == "MPO" else str(image.format)
        number = array_orientation(image, image_bytes)
        return ImageHeader(format_name, image.mode, image.height, image.width, number)


@tf.autograph.experimental.do_not_convert
def image_size(image_bytes: tf.Tensor, exif: bool = False, pillow: bool = True) -> tf.Tensor:
    """[2] int32 (height, width); of JPEG, PNG and BMP, or whatever Pillow reads, only the header is read.

    Args:
      image_bytes, exif, pillow: as in `decode_image`; with `exif` the size as displayed.
    """

    def png():
        return big_endian(tf.strings.substr(image_bytes, [20, 16], [4, 4]))

    def other():
        if pillow:
            return _in_python(_header_size, image_bytes, tf.int32, [2])
        return tf.shape(_decode_other(image_bytes, 16, pillow))[:2]

    def not_jpeg():
        return tf.cond(_starts_with(image_bytes, _PNG), png, other)

    size = tf.cond(tf.io.is_jpeg(image_bytes), lambda: tf.image.extract_jpeg_shape(image_bytes)[:2], not_jpeg)
    if not exif:
        return size
    return tf.where(orientation(image_bytes, pillow) >= 5, size[::-1], size)


@tf.autograph.experimental.do_not_convert
def orientation(image_bytes: tf.Tensor, pillow: bool = True) -> tf.Tensor:
    """Scalar int32, the EXIF orientation 1..8 of a JPEG, PNG, or (through Pillow) WebP or AVIF.

    It is 1 where there is none or it is damaged.
    """

    def other():
        if not pillow:
            return tf.constant(1)
        has_none = _starts_with(image_bytes, b"BM") | _starts_with(image_bytes, b"GIF8")
        return tf.cond(has_none, lambda: tf.constant(1), read)

    def read():
        return _in_python(lambda data: np.int32(read_header(data).orientation), image_bytes, tf.int32, [])

    def not_jpeg():
        is_png = _starts_with(image_bytes, _PNG)
        return tf.cond(is_png, lambda: png_orientation(image_bytes), other)

    return tf.cond(tf.io.is_jpeg(image_bytes), lambda: jpeg_orientation(image_bytes), not_jpeg)


def _check_bits(bits):
    if not isinstance(bits, (int, np.integer)) or not 9 <= bits <= 16:
        raise Mistake(f"bits must be 9 to 16, those in use of 16-bit channels. Received bits={bits!r}. Pass 12 or 16.")


# TensorFlow


def _starts_with(image_bytes, magic):
    return tf.equal(tf.strings.substr(image_bytes, 0, len(magic)), magic)


def _in_python(function, image_bytes, dtype, shape):
    """Applies a function of bytes, whose end is marked since NumPy cuts zeros off strings that it holds."""

    @tf.autograph.experimental.do_not_convert
    def apply(text):
        return function((text if isinstance(text, bytes) else text.item())[:-1])

    return tf.ensure_shape(tf.numpy_function(apply, [tf.strings.join([image_bytes, b"|"])], dtype), shape)


def _decode_other(image_bytes, bits, pillow):
    """Anything but JPEG."""

    def rest():
        if pillow:
            return _in_python(
                lambda data: decode_array(data, False, bits, None), image_bytes, tf.uint8, [None, None, 3]
            )
        return tf.io.decode_image(image_bytes, channels=3, expand_animations=False)

    def not_png():
        return tf.cond(_is_plain_bmp(image_bytes), lambda: _decode_bmp(image_bytes), rest)

    is_png = _starts_with(image_bytes, _PNG)
    return tf.cond(is_png, lambda: _decode_png(image_bytes, bits), not_png)


def _decode_png(image_bytes, bits):
    def shallow():
        return tf.io.decode_png(image_bytes, channels=3)  # of 16 bits the upper byte

    def deep():
        values = tf.cast(tf.io.decode_png(image_bytes, channels=3, dtype=tf.uint16), tf.int32)
        return tf.cast(tf.minimum(values // 2 ** (bits - 8), 255), tf.uint8)

    if bits == 16:
        return shallow()
    return tf.cond(tf.equal(tf.strings.substr(image_bytes, 24, 1), b"\x10"), deep, shallow)


def _is_plain_bmp(image_bytes):
    """Uncompressed 8, 24 or 32 bits per pixel, with a header of Windows' kind."""

    def plain():
        header = tf.cast(tf.io.decode_raw(tf.strings.substr(image_bytes, 14, 20), tf.uint8), tf.int32)
        depth, compression = header[14], tf.reduce_sum(header[16:20])
        return (header[0] >= 40) & tf.reduce_any(depth == [8, 24, 32]) & (compression == 0)

    is_bmp = _starts_with(image_bytes, b"BM") & (tf.strings.length(image_bytes) >= 54)
    return tf.cond(is_bmp, plain, lambda: tf.constant(False))


def _decode_bmp(image_bytes):
    """TensorFlow takes the palette's indices for gray, so they are looked up here."""

    def palette():
        first = 14 + _little_endian(tf.strings.substr(image_bytes, 14, 4))
        colours = tf.reshape(tf.io.decode_raw(tf.strings.substr(image_bytes, first, 4 * 256), tf.uint8), [-1, 4])
        offset = _little_endian(tf.strings.substr(image_bytes, 10, 4))
        colours = colours[: (offset - first) // 4, 2::-1]
        return tf.gather(colours, tf.cast(tf.io.decode_bmp(image_bytes)[..., 0], tf.int32))

    def colour():
        return tf.io.decode_bmp(image_bytes)[..., :3]

    return tf.cond(tf.equal(tf.strings.substr(image_bytes, 28, 1), b"\x08"), palette, colour)


def _little_endian(text):
    return tf.io.decode_raw(text, tf.int32, little_endian=True)[0]


# Pillow


@contextlib.contextmanager
def _opened(image_bytes: bytes) -> Iterator[Image.Image]:
    """An image of Pillow's, of any size; what goes wrong with its content becomes a Mistake."""
    Image.init()
    try:
        with _opening:  # Pillow's limit is a global of its module and is checked where the header is read
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(io.BytesIO(image_bytes), formats=[name for name in _FORMATS if name in Image.OPEN])
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        with image:
            yield image
    except Mistake:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on damaged files
        raise Mistake(
            f"bytes of an image are needed. Received {len(image_bytes)} bytes that begin with "
            f"{bytes(image_bytes[:12])!r}: {type(error).__name__}: {error}. Save it as JPEG or PNG."
        ) from error


def _to_rgb(image, bits, image_bytes):
    """[h, w, 3] uint8, as stored."""
    if image.mode in _DEEP_MODES or (image.mode == "I" and image.format in ("PNG", "PPM")):
        grey = np.minimum(np.asarray(image).astype(np.int32) >> (bits - 8), 255).astype(np.uint8)
        return np.stack([grey] * 3, axis=-1)
    if image.mode in ("I", "F"):
        raise Mistake(
            f"an image must have 8 or 16 bits per channel. Received a {image.format} of 32-bit or signed numbers, "
            "which have no range to scale by. Save it as 16-bit or 8-bit PNG."
        )
    if bits < 16 and image.format == "PNG" and image_bytes[24] == 16:
        raise Mistake(
            f"Pillow takes {bits} of 16 bits of gray alone. Received a PNG of 16-bit colours. "
            "Save it as gray or with 8 bits."
        )
    image.load()
    image.info.pop("transparency", None)  # the colours stay, so Pillow need not ask what becomes of it
    return np.array(image.convert("RGB"))


def _header_size(image_bytes):
    header = read_header(image_bytes)
    return np.array([header.height, header.width], np.int32)
