"""Class masks as files: numbers of any depth, palettes or colours, to [height, width] uint8 of classes."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer.records.annotations import UNLABELLED, MaskCodes
from tf_pixpro.transfer.records.image_files import read_text

_NO_CLASS = ("void", "unlabelled", "unlabeled", "ignore", "ignored", "unknown")


def class_mask(mask_bytes: bytes, codes: MaskCodes | None, where: str) -> np.ndarray:
    """Reads a mask.

    Args:
      mask_bytes: the content of the file: 1-, 2-, 4-, 8- or 16-bit grey, a palette (its indices are the values) or,
        with `codes.colours`, colours. Colours whose three channels are equal are read as grey.
      codes: what the values mean; None takes them as they are.
      where: path, for messages.

    Returns:
      [height, width] uint8 of classes; `UNLABELLED` where there is none.

    Raises:
      Mistake: if a value or colour stands for no class, or the file holds no values.
    """
    if codes is not None and codes.colours is not None:
        return _by_colour(_colours(mask_bytes, where), codes.colours, where)
    values = class_values(mask_bytes, where)
    if codes is None:
        codes = MaskCodes(UNLABELLED)
    table = dict(codes.table) if codes.table is not None else {value: value for value in range(codes.classes)}
    table.setdefault(UNLABELLED, UNLABELLED)
    present, inverse = np.unique(values, return_inverse=True)
    _known(present.tolist(), table, where, f"Its classes have the values {_spans(table)}")
    lookup = np.array([table[value] for value in present.tolist()], np.uint8)
    return lookup[inverse].reshape(values.shape)


def colour_table(path: str) -> tuple[list[str], tuple]:
    """Reads a table of colours.

    Its lines are such as '128 0 0 car', 'car,128,0,0' (class_dict.csv) or 'car:128,0,0::' (labelmap.txt). Lines
    without three numbers and those that begin with # are skipped.

    Returns:
      (names of the classes in the file's order, colours for `MaskCodes`). Void, unlabelled, ignore and unknown are no
      class.

    Raises:
      Mistake: if no line has a colour, or two lines have the same.
    """
    names: list[str] = []
    colours: dict = {}
    for line in read_text(path).splitlines():
        found = re.search(r"(?<![\d.])(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})(?![\d.])", line)
        if line.strip().startswith("#") or not found:
            continue
        before = line[: found.start()].strip(" \t,;:\"'")
        name = before or line[found.end() :].strip(" \t,;:\"'")
        colour = tuple(map(int, found.groups()))
        if not name or max(colour) > 255 or colour in colours:
            raise Mistake(
                f"a colour table has a name and an unused colour of 0 to 255 on each line. Received {line!r}."
            )
        if name.lower() in _NO_CLASS:
            colours[colour] = UNLABELLED
            continue
        if name not in names:
            names.append(name)
        colours[colour] = names.index(name)
    if not names:
        raise Mistake(f"a colour table has lines such as '128 0 0 car'. Received {path!r} with none.")
    return names, tuple(colours.items())


def class_values(mask_bytes: bytes, where: str) -> np.ndarray:
    """The numbers [height, width] int64 that a mask of numbers stores.

    Raises:
      Mistake: if it holds colours or anything else, several pages, or is packed with loss, which changes numbers.
    """
    image = _opened(mask_bytes, where)
    lossy = _lossy(image, mask_bytes)
    if lossy:
        raise Mistake(
            f"a mask must be stored without loss. Received {where}, a {lossy}, in which class numbers run into each "
            "other. Take the original masks, or round their values to the classes and save them as PNG."
        )
    if image.mode in ("1", "P", "I", "I;16", "I;16B", "I;16L", "I;16N"):
        return np.asarray(image).astype(np.int64)
    if image.mode == "L":
        depth = mask_bytes[24] if image.format == "PNG" else 8
        return np.asarray(image).astype(np.int64) // {1: 255, 2: 85, 4: 17}.get(depth, 1)  # Pillow scales them up
    if image.mode == "PA":
        return np.asarray(image)[..., 0].astype(np.int64)
    if image.mode in ("LA", "RGB", "RGBA"):
        channels = _channels(image, mask_bytes, where)
        if (channels == channels[..., :1]).all():
            return channels[..., 0]
        raise Mistake(
            f"a mask holds class numbers. Received {where}, which holds colours. Give their classes by a colour table: "
            "--format=masks --colours=FILE with lines such as '128 0 0 car'."
        )
    raise Mistake(
        f"a mask holds class numbers or colours. Received {where} of Pillow's mode {image.mode!r}. Save it as PNG."
    )


def _opened(mask_bytes, where):
    image = Image.open(io.BytesIO(mask_bytes))
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise Mistake(
            f"a mask must be one image. Received {where} with {pages} pages. Save the one that is meant as PNG."
        )
    return image


def _lossy(image, mask_bytes):
    """The kind of a file that changes its values, or None."""
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    if image.format == "TIFF" and image.info.get("compression") == "jpeg":
        return "TIFF packed as JPEG"
    return "lossy WebP" if image.format == "WEBP" and b"VP8L" not in mask_bytes else None


def _channels(image, mask_bytes, where):
    """[height, width, 1 or 3] int64 without alpha; Pillow has but the upper byte of 16 bits."""
    if image.format == "PNG" and mask_bytes[24] == 16:
        channels = tf.io.decode_png(mask_bytes, dtype=tf.uint16).numpy()
    elif image.format == "TIFF" and max(image.tag_v2.get(258, (8,))) > 8:
        raise Mistake(
            f"a mask of several channels has 8 bits in each. Received {where} with more. Save it as PNG of 8 bits, or "
            "as one channel."
        )
    else:
        channels = np.asarray(image)
    return channels[..., : 3 if channels.shape[-1] > 2 else 1].astype(np.int64)


def _colours(mask_bytes, where):
    """[height, width, 3] int64 of 0 to 255."""
    image = _opened(mask_bytes, where)
    if image.mode in ("RGB", "RGBA"):
        channels = _channels(image, mask_bytes, where)
        if channels.max(initial=0) <= 255:
            return channels  # also colours of 8 bits in a file of 16
        return channels >> 8
    return np.asarray(image.convert("RGB")).astype(np.int64)


def _by_colour(channels, colours, where):
    packed = channels @ np.array([1 << 16, 1 << 8, 1])
    table = {(red << 16) + (green << 8) + blue: label for (red, green, blue), label in colours}
    present, inverse = np.unique(packed, return_inverse=True)
    unknown = [((value >> 16), (value >> 8) & 255, value & 255) for value in present.tolist() if value not in table]
    if unknown:
        raise Mistake(
            f"every colour of a mask must be in the colour table. Received {unknown[:5]} in {where}. Add them (as "
            "void, if they are no "
            "class); masks saved as JPEG have colours between the classes: use PNG."
        )
    lookup = np.array([table[value] for value in present.tolist()], np.uint8)
    return lookup[inverse].reshape(packed.shape)


def _known(values: Sequence[int], table: dict, where: str, expected: str) -> None:
    unknown = [value for value in values if value not in table]
    if unknown:
        shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise Mistake(
            f"every value of a mask must be a class. Received {shown} in {where}. {expected} and {UNLABELLED} (no "
            "class). "
            "Correct the mask, or give the names of all classes."
        )


def _spans(table):
    values = sorted(value for value in table if value != UNLABELLED)
    return f"{values[0]} to {values[-1]}" if values else "none"
