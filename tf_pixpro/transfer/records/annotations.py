"""What an annotated image is, whoever annotated it, and how what is wrong with it is reported."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from absl import logging

from tf_evonorm.mistakes import Mistake

UNLABELLED = 255
"""The value of a class mask that stands for no class."""


@dataclasses.dataclass(frozen=True)
class Category:
    """A class of objects: the number that a model learns for it (1 and up; 0 is the background) and its name."""

    label: int
    name: str


@dataclasses.dataclass(frozen=True)
class ObjectAnnotation:
    """One object of an image.

    Attributes:
      label: number of its `Category`.
      box: (x1, y1, x2, y2) in pixels; a box of the whole image is (0, 0, width, height).
      area: of the object, square pixels.
      crowd: whether it is many objects in one (COCO).
      difficult: whether it is left out of the score (Pascal VOC).
      segmentation: its outline as COCO writes it, polygons or run lengths; None if only its box is known.
      where: file and line, or id, for messages.
    """

    label: int
    box: tuple
    area: float
    crowd: bool = False
    difficult: bool = False
    segmentation: Any = None
    where: str = ""


@dataclasses.dataclass(frozen=True)
class MaskCodes:
    """What the values of a class mask mean.

    Attributes:
      classes: number of classes; their values are 0 to classes - 1.
      table: (value in the file, class) for each value that may occur; None where the values are the classes. 255 is
        `UNLABELLED` in both cases.
      colours: ((red, green, blue), class) for masks that are coloured images; None for masks of numbers.
    """

    classes: int
    table: Optional[tuple] = None
    colours: Optional[tuple] = None


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """One image file and its annotations.

    Attributes:
      path: of the image file.
      number: its id, an integer, which Model Garden's evaluators want.
      size: (height, width) in pixels as the annotation has it; None where it does not say.
      objects: `ObjectAnnotation`s, none for an image that only has background.
      classes: path of a mask [height, width] of classes, for semantic segmentation; None otherwise.
      codes: what the values of that mask mean; None takes 0 to 254 as they are.
      where: file or id, for messages.
      file_name: path below the folder of the images; the base name of `path` if empty.
    """

    path: str
    number: int
    size: Optional[tuple] = None
    objects: tuple = ()
    classes: Optional[str] = None
    codes: Optional[MaskCodes] = None
    where: str = ""
    file_name: str = ""


class Problems:
    """Counts what is wrong with annotations; the first is an error if `strict`.

    Attributes:
      counts: kind of problem -> how often.
      lines: 'where: what', at most `kept`; all of them are in the log.
      notes: what a reader decided that the user should know and that is no problem.
    """

    def __init__(self, strict: bool = False, kept: int = 1000):
        self.strict, self.kept = strict, kept
        self.counts: collections.Counter = collections.Counter()
        self.lines: list[str] = []
        self.notes: list[str] = []

    def add(self, kind: str, where: str, what: str) -> None:
        """Reports one problem.

        Args:
          kind: what it is counted as.
          where: file and line, or file and id.
          what: the rule, what was found, and what is done about it.

        Raises:
          Mistake: if strict.
        """
        line = f"{where}: {what}"
        if self.strict:
            raise Mistake(line)
        self.counts[kind] += 1
        if len(self.lines) < self.kept:
            self.lines.append(line)
        logging.info("%s", line)

    def note(self, line: str) -> None:
        """Reports a decision."""
        self.notes.append(line)
        logging.info("%s", line)

    def merge(self, counts: Mapping[str, int], lines: Sequence[str]) -> None:
        """Adds what another one has counted."""
        self.counts.update(counts)
        self.lines += lines[: self.kept - len(self.lines)]

    def summary(self, count: int = 5) -> str:
        """The first problems in one line, for the error that ends a conversion."""
        more = sum(self.counts.values()) - count
        return " | ".join(self.lines[:count]) + (f" | and {more} more" if more > 0 else "")


def number(value: Any) -> float:
    """A finite number that may be written as text.

    Raises:
      ValueError: if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r} is no number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ValueError(f"{value!r} is no finite number")
    return result


def truth(value: Any) -> bool:
    """Yes or no in the spellings of annotation tools: 0, 1, true, False, 'yes', 'N', '1.0', None.

    Raises:
      ValueError: if it is none of them.
    """
    text = "" if value is None else str(value).strip().lower()
    if text in ("", "false", "no", "n", "f", "off", "none", "null", "unspecified"):
        return False
    if text in ("true", "yes", "y", "t", "on"):
        return True
    try:
        return number(text) != 0
    except ValueError:
        raise ValueError(f"{value!r} is neither yes nor no") from None


def clipped(
    box: tuple[float, float, float, float], size: tuple[int, int], where: str, problems: Problems
) -> tuple[float, float, float, float] | None:
    """A box inside its image: itself, its part that is inside (a problem), or None if nothing of it is.

    Args:
      box: (x1, y1, x2, y2) in pixels. Half a pixel over the border is rounding and no problem.
      size: (height, width) in pixels.
      where: for messages.
      problems: gets what is wrong.
    """
    x1, y1, x2, y2 = box
    height, width = size
    inside = (min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height))
    if not (inside[2] > inside[0] and inside[3] > inside[1]):  # also where one is not a number
        problems.add(
            "empty box", where, f"a box must hold a part of its {width}x{height} image. Received {box}. Left out."
        )
        return None
    if max(abs(a - b) for a, b in zip(box, inside)) > 0.5:
        problems.add("box outside", where, f"a box must lie in its {width}x{height} image. Received {box}. Cut.")
    return inside


def fraction(images: Sequence[AnnotatedImage], share: float) -> list[AnnotatedImage]:
    """The same share of a data set at every call and on every machine, chosen by image number.

    Args:
      images: list of `AnnotatedImage`.
      share: above 0 and up to 1; the share 0.01 is a part of the share 0.1.

    Returns:
      Those whose number has a SHA-256 below that share of all; at least one, if there is any.

    Raises:
      Mistake: if share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise Mistake(f"share must be above 0 and up to 1. Received share={share}. One percent is 0.01.")
    draw = {i.number: int.from_bytes(hashlib.sha256(b"%d" % i.number).digest()[:8], "big") / 2**64 for i in images}
    chosen = [image for image in images if draw[image.number] < share]
    return chosen or sorted(images, key=lambda image: draw[image.number])[:1]
