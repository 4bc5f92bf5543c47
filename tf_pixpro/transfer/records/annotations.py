"""What an annotated picture is, whoever annotated it, and how what is wrong with it is told."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from absl import logging


@dataclasses.dataclass(frozen=True)
class Category:
    """A class of objects: the number that a model learns for it (1 and up; 0 is the background) and its name."""

    label: int
    name: str


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object of a picture.

    Attributes:
      label: number of its `Category`.
      box: (x1, y1, x2, y2) in pixels; a box of the whole picture is (0, 0, width, height).
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
class Picture:
    """One image file and what is on it.

    Attributes:
      path: of the image file, JPEG or PNG.
      number: its id, an integer, which Model Garden's evaluators want.
      size: (height, width) in pixels as the annotation has it; None where it does not say.
      things: objects, none for a picture that only has background.
      classes: path of a mask [height, width] of class numbers, for semantic segmentation; None otherwise.
      relabel: 256 numbers, the class that each value of that mask becomes; None keeps them.
      where: file or id, for messages.
    """

    path: str
    number: int
    size: Optional[tuple] = None
    things: tuple = ()
    classes: Optional[str] = None
    relabel: Optional[bytes] = None
    where: str = ""


class Problems:
    """Counts what is wrong with annotations; the first is an error if `strict`.

    Attributes:
      counts: kind of problem -> how often.
      lines: 'where: what', as many as `kept`; all of them are in the log.
    """

    def __init__(self, strict: bool = False, kept: int = 1000):
        self.strict, self.kept = strict, kept
        self.counts: collections.Counter = collections.Counter()
        self.lines: list[str] = []

    def add(self, kind: str, where: str, what: str) -> None:
        """Tells of one problem.

        Args:
          kind: what it is counted as.
          where: file and line, or file and id.
          what: the rule, what was found, and what is done about it.

        Raises:
          ValueError: if strict.
        """
        line = f"{where}: {what}"
        if self.strict:
            raise ValueError(line)
        self.counts[kind] += 1
        if len(self.lines) < self.kept:
            self.lines.append(line)
        logging.info("%s", line)

    def take(self, counts: Mapping[str, int], lines: Sequence[str]) -> None:
        """Adds what another one has counted."""
        self.counts.update(counts)
        self.lines += lines[: self.kept - len(self.lines)]


def clipped(
    box: tuple[float, float, float, float], size: tuple[int, int], where: str, problems: Problems
) -> tuple[float, float, float, float] | None:
    """A box inside its picture: itself, its part that is inside, told as a problem, or None if nothing of it is.

    Args:
      box: (x1, y1, x2, y2) in pixels. Half a pixel over the border is rounding and no problem.
      size: (height, width) in pixels.
      where: for messages.
      problems: who is told.
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


def fraction(pictures: Sequence[Picture], share: float) -> list[Picture]:
    """The same share of a data set at every call and on every machine, chosen by image number.

    Args:
      pictures: list of `Picture`.
      share: above 0 and up to 1; the share 0.01 is a part of the share 0.1.

    Returns:
      Those whose number has a SHA-256 below that share of all; at least one.

    Raises:
      ValueError: if share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and up to 1. Received share={share}. One percent is 0.01.")
    draw = {p.number: int.from_bytes(hashlib.sha256(b"%d" % p.number).digest()[:8], "big") / 2**64 for p in pictures}
    chosen = [p for p in pictures if draw[p.number] < share]
    return chosen or sorted(pictures, key=lambda p: draw[p.number])[:1]
