"""Layers that searches have found, each as a JSON file with its formula and the measurements behind it.

A layer is shipped here if it was better than BatchNorm-ReLU in networks and on images that its search never saw.
`layer_from_graph("found:NAME")` makes it, and `found:NAME` is its name in configs.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import pathlib
import re
from typing import Any

from tf_evonorm.atomic import atomic_path
from tf_evonorm.mistakes import Mistake

FOLDER = pathlib.Path(__file__).parent
PREFIX = "found:"
FORMAT = "evonorm-found-1"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


@dataclasses.dataclass(frozen=True)
class Found:
    """A layer with its evidence.

    Attributes:
      graph: the object that `Graph.read` accepts.
      formula: the layer before its affine transform, as text.
      options: keyword arguments of `GraphLayer` with which it was measured.
      evidence: what was measured, in words and figures, with the command that repeats it.
      date: of the measurement, year-month-day.
      licence: SPDX identifier of the terms under which the formula may be used.

    Raises:
      Mistake: if a part is empty or of another kind, or the date is none.
    """

    graph: dict
    formula: str
    evidence: str
    date: str
    licence: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        kinds = {"graph": dict, "formula": str, "evidence": str, "date": str, "licence": str}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or not value:
                raise Mistake(f"a found layer has a {name}. Received {str(value)[:40]!r}.")
        if not isinstance(self.options, dict):
            raise Mistake(f"options of a found layer are keyword arguments. Received {str(self.options)[:40]!r}.")
        try:
            datetime.date.fromisoformat(self.date)
        except ValueError as error:
            raise Mistake(f"the date of a found layer must be like 2026-11-28. Received {self.date[:40]!r}.") from error


def names() -> tuple[str, ...]:
    """Returns the names of the shipped layers, without the prefix."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def read(name: str) -> Found:
    """Reads a shipped layer.

    Args:
      name: one of `names()`, with or without the prefix.

    Raises:
      Mistake: there is no such layer, or its file is damaged.
    """
    name = name.removeprefix(PREFIX)
    if name not in names():
        shipped = ", ".join(names()) or "no layer in this version"
        raise Mistake(f"{PREFIX}NAME is a shipped layer: {shipped}. Received {name[:40]!r}.")
    path = FOLDER / f"{name}.json"
    try:
        content = json.loads(path.read_text())
        if content.pop("format") != FORMAT:
            raise ValueError(f"the format is not {FORMAT}")
        return Found(**content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Mistake(f"{path} must be the file of a found layer. Received {str(error)[:80]}.") from error


def write(name: str, layer: Found, folder: str | os.PathLike = FOLDER) -> str:
    """Writes the file of a layer, atomically.

    Args:
      name: lower-case letters, digits and underscores.
      layer: the layer and its evidence.
      folder: where the file goes.

    Returns:
      Path of the file.

    Raises:
      Mistake: a wrong name.
    """
    if not _NAME.fullmatch(name):
        raise Mistake(f"a found layer is named like b_small_1. Received {name[:40]!r}.")
    path = os.path.join(folder, f"{name}.json")
    content = {"format": FORMAT, **dataclasses.asdict(layer)}
    with atomic_path(path) as partial, open(partial, "w") as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path
