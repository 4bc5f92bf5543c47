"""Image files of a data set: found by the names in annotations, measured, and stored as Model Garden reads them."""

from __future__ import annotations

import io
import ntpath
import os
import posixpath
import re
import unicodedata
import urllib.parse
from collections.abc import Sequence
from typing import Optional

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_pixpro.views import decode

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jfif", ".gif", ".jp2", ".avif", ".heic", ".ppm")
"""Endings by which image files are recognised, the preferred first."""


class ImageFolder:
    """The files of a folder, looked up as annotations name them.

    Args:
      path: of the folder.
    """

    def __init__(self, path: str):
        self.path = path
        self._listings: dict = {}
        self._uploaded: dict[str, str] = {}  # name of an uploaded image without its digits -> the name with them

    def find(self, name: str) -> Optional[str]:
        """The path of the file that an annotation names, or None.

        The name counts as it is first. Then backslashes are separators, a URL or a path of another machine (absolute,
        or one that begins with '..') is shortened from its beginning until a file is found, and of another relative
        path only the beginning that repeats the end of the folder's own path is dropped. The case of the last part may
        differ where that is unambiguous, and accents may be stored apart from their letters, as macOS does; %20 may
        stand for a space. Last, the eight hexadecimal digits that Label Studio puts before the names of uploaded images
        are dropped with the folder, for one image of a name.
        """
        for candidate in self._candidates(name):
            path = self._existing(candidate)
            if path:
                return path
        uploaded = re.fullmatch(r"(?:.*[\\/])?[0-9a-f]{8}-([^\\/]+)", name.strip())
        if uploaded and self._uploaded.setdefault(uploaded[1], name) == name:
            return self._existing(uploaded[1])
        return None

    def by_stem(self, stem: str) -> Optional[str]:
        """The image of that name with any ending, or None."""
        folder, stem = os.path.split(stem)
        listing = self.listing(folder)
        for exact in (True, False):
            for ending in ENDINGS:
                alike = listing.get(folded(stem + ending), ())
                found = [name for name in alike if not exact or os.path.splitext(name)[0] == stem]
                if found:
                    return os.path.join(self.path, folder, found[0])
        return None

    def listing(self, below: str = "") -> dict:
        """Folded name (see `folded`) -> names of the files in a folder below this one; empty if there is none."""
        if below not in self._listings:
            folder = os.path.join(self.path, below) if below else self.path
            names: dict[str, list[str]] = {}
            if tf.io.gfile.isdir(folder or "."):
                for name in sorted(tf.io.gfile.listdir(folder or ".")):
                    names.setdefault(folded(name.rstrip("/")), []).append(name.rstrip("/"))
            self._listings[below] = names
        return self._listings[below]

    def images(self, below: str = "") -> list[str]:
        """Paths, relative to the folder, of the images in it and in the folders below, sorted."""
        found = []
        for names in list(self.listing(below).values()):
            for name in names:
                path = os.path.join(below, name)
                if name.startswith((".", "@", "$", "__MACOSX")):
                    continue
                if name.lower().endswith(ENDINGS):
                    found.append(path)
                elif tf.io.gfile.isdir(os.path.join(self.path, path)):
                    found += self.images(path)
        return sorted(found)

    def _existing(self, name):
        for spelling in dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))):
            path = os.path.join(self.path, spelling)
            if tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path):
                return path
        folder, last = os.path.split(name)
        alike = [] if os.path.isabs(name) else self.listing(folder).get(folded(last), [])
        return os.path.join(self.path, folder, alike[0]) if len(alike) == 1 else None

    def _candidates(self, name):
        name = name.strip()
        yield name
        foreign = False
        if re.match(r"[a-zA-Z][\w+.-]*://", name):
            try:
                parts = urllib.parse.urlsplit(name)
            except ValueError:  # brackets of no address
                return
            name, foreign = urllib.parse.unquote(parts.path), True
            for value in urllib.parse.parse_qs(parts.query).get("d", ()):  # Label Studio's local files
                name = value
        elif "?d=" in name:
            name, foreign = urllib.parse.unquote(name.partition("?d=")[2]), True
        else:
            foreign = posixpath.isabs(name) or bool(ntpath.splitdrive(name)[0]) or ntpath.isabs(name)
        pieces = [piece for piece in re.split(r"[\\/]+", ntpath.splitdrive(name)[1]) if piece not in ("", ".")]
        foreign = foreign or pieces[:1] == [".."]
        pieces = [piece for piece in pieces if piece != ".."]
        own = [piece for piece in os.path.abspath(self.path or ".").split(os.sep) if piece]
        for start in range(len(pieces)):
            if foreign or start == 0 or own[-start:] == pieces[:start]:
                yield os.path.join(*pieces[start:])
        if "%" in name and urllib.parse.unquote(name) != name:
            yield from self._candidates(urllib.parse.unquote(name))


def folded(name: str) -> str:
    """A name in lower case with composed accents, in which names of one file on several systems agree."""
    return unicodedata.normalize("NFC", name).lower()


def image_size(path: str, exif: bool = True) -> tuple[int, int]:
    """(height, width) of an image file by its header.

    Args:
      path: of the file.
      exif: whether as displayed, by its EXIF orientation.

    Raises:
      Mistake: if it is no image.
      tf.errors.OpError: if it cannot be read.
    """
    header = decode.read_header(read(path))
    return header.upright if exif else (header.height, header.width)


def stored_image(image_bytes: bytes, exif: bool = True, bits: int = 16) -> tuple[bytes, str, tuple[int, int]]:
    """An image as it goes into the records.

    Args:
      image_bytes: the content of the file.
      exif: whether it is rotated upright by its EXIF orientation, as the tools in which it was annotated show it.
      bits: how many of 16 bits per channel are used.

    Returns:
      (bytes, 'jpeg' or 'png', (height, width)). A JPEG or PNG file of grey or colours without an orientation is kept to
      the byte, where TensorFlow decodes it; anything else is decoded as `tf_pixpro.views.decode` does and stored as PNG
      without loss.

    Raises:
      Mistake: if the bytes cannot be decoded, or hold more pixels than `decode.MAX_PIXELS`.
    """
    header = decode.read_header(image_bytes)
    plain = header.format in ("JPEG", "PNG") and header.mode in ("L", "RGB") and header.orientation == 1
    deep = header.format == "PNG" and image_bytes[24] == 16
    array = decode.decode_array(image_bytes, exif=exif, bits=bits)
    if plain and not (deep and bits != 16) and _tensorflow_decodes(image_bytes):
        return image_bytes, header.format.lower(), array.shape[:2]
    stored = io.BytesIO()
    Image.fromarray(array).save(stored, "PNG")
    return stored.getvalue(), "png", array.shape[:2]


def _tensorflow_decodes(image_bytes):
    """Whether training can read what Pillow has: it does not where a file has lost its last bytes."""
    try:
        tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
        return True
    except tf.errors.InvalidArgumentError:
        return False


def read(path: str) -> bytes:
    """The content of a file, local or remote."""
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


def read_text(path: str) -> str:
    """The content of a text file: UTF-8 with or without a byte order mark, UTF-16 with one, else Latin-1."""
    content = read(path)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def first_folder(root: str, names: Sequence[str]) -> Optional[str]:
    """The first of some folders that exists below a root, whatever the case of its letters."""
    listing = ImageFolder(root).listing()
    for name in names:
        for actual in listing.get(folded(name), ()):
            path = os.path.join(root, actual)
            if tf.io.gfile.isdir(path):
                return path
    return None


def uint8_png(array: np.ndarray) -> bytes:
    """A [height, width] or [height, width, 3] uint8 array as a PNG file."""
    stored = io.BytesIO()
    Image.fromarray(array).save(stored, "PNG")
    return stored.getvalue()
