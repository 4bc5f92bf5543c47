"""Which files of a folder or zip are images, of which split and class: names in, names and labels out, no pixels.

The class of an image is the folder that holds it. A split is a folder at the top of the source, such as
train/CLASS/NAME.jpg, or below folders that all images share. Hidden files and folders, and those that systems and tools
leave behind (`._NAME.jpg`, `.ipynb_checkpoints`, `__MACOSX`, `@eaDir`, `$RECYCLE.BIN`, `Thumbs.db`), never count.
"""

from __future__ import annotations

import collections
import os
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Optional, TypeVar

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_evonorm.mistakes import Mistake

SAMPLED = 1000
"""How many files or records of a source are looked at before it is used."""
Item = TypeVar("Item")
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif")
"""Endings of what TensorFlow decodes, but for rare kinds; content decides, not the ending."""
PILLOW_ENDINGS = {
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
_TOOLS = {"__macosx", "$recycle.bin", "system volume information", "lost+found", "__pycache__", "thumbs.db"}
_TOOLS |= {"ehthumbs.db", "desktop.ini", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"}
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"}


def endings() -> tuple[str, ...]:
    """Endings of the images that can be decoded here."""
    Image.init()
    return (*ENDINGS, *(ending for kind, some in PILLOW_ENDINGS.items() if kind in Image.OPEN for ending in some))


def walk(root: str) -> Iterator[str]:
    """Files below a folder, by names relative to it with forward slashes; links are followed, circles of them cut."""
    yield from _walk_remote(root) if is_remote(root) else _walk(root, "", (os.path.realpath(root),))


def is_remote(path: str) -> bool:
    """Whether a path names a file system, such as gs://bucket/folder."""
    return "://" in path


def _walk_remote(root):
    """In the order of local folders."""
    below = [(folder[len(root) :].strip("/"), files) for folder, _, files in tf.io.gfile.walk(root)]
    names = [f"{folder}/{file}".lstrip("/") for folder, files in below for file in files]
    yield from sorted(names, key=lambda name: name.split("/"))


def _walk(folder, prefix, above):
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if ignored(entry.name):
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in above:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, real))
            elif entry.is_file():
                yield prefix + entry.name


def ignored(name: str) -> bool:
    """Whether a file or folder of this name is hidden or left behind by a system or tool."""
    return name.startswith(".") or name.lower() in _TOOLS


def choose(path: str, names: Sequence[str], split: Optional[str]) -> tuple[list[str], list[int], tuple[str, ...]]:
    """Images of a split, their labels (-1 without classes) and the names of the classes.

    Args:
      path: of the source, for messages.
      names: of its files, with forward slashes.
      split: name of the split's folder, or its path below the source, such as 'images/train'; None for all.

    Raises:
      Mistake: there are no images, or no such split.
    """
    names = [name for name in names if not any(ignored(part) for part in name.split("/"))]
    known = endings()
    images = [name for name in names if name.lower().endswith(known)]
    left_out = _by_ending(name for name in names if not name.lower().endswith(known))
    if not images:
        raise Mistake(
            f"images ({', '.join(known)}) are needed. Received {path!r} with {len(names)} other files"
            f"{f': {left_out}' if left_out else ''}. Convert them to JPEG or PNG."
        )
    if left_out:
        tf.get_logger().warning("%s: %d images; other files are left out: %s", path, len(images), left_out)
    images = images if split is None else _of_split(path, images, split)
    # Some systems store accents apart from their letters.
    parents = [unicodedata.normalize("NFC", name.split("/")[-2]) if "/" in name else "" for name in images]
    classes = tuple(sorted(set(parents)))
    if len(classes) < 2:
        return images, [-1] * len(images), ()
    _report_classes(path, parents, classes)
    numbers = {name: number for number, name in enumerate(classes)}
    return images, [numbers[parent] for parent in parents], classes


def _report_classes(path, parents, classes):
    """Logs classes that are hardly meant."""
    if "" in classes:
        tf.get_logger().warning(
            "%s: %d images lie beside the folders of the others and are a class of their own, named ''.",
            path, parents.count(""),
        )  # fmt: skip
    alike = collections.defaultdict(list)
    for name in classes:
        alike[name.casefold().strip()].append(name)
    for names in alike.values():
        if len(names) > 1:
            tf.get_logger().warning("%s: these classes differ in capitals or spaces alone: %r", path, names)


def _by_ending(names):
    counts = collections.Counter(os.path.splitext(name)[1].lower() or "without ending" for name in names)
    return ", ".join(f"{count} {ending}" for ending, count in counts.most_common(8))


def _of_split(path, images, split):
    asked = tuple(part for part in split.split("/") if part)
    folders = [tuple(name.split("/")[:-1]) for name in images]
    while True:
        inside = [name for name, parts in zip(images, folders) if parts[: len(asked)] == asked]
        if inside:
            return inside
        first = {parts[:1] for parts in folders}
        shared = next(iter(first)) if len(first) == 1 else ()
        if not shared or shared[0].lower() in _SPLITS:
            break
        folders = [parts[1:] for parts in folders]
    there = sorted({parts[0] for parts in folders if parts}) or ["no folders"]
    deeper = sorted({"/".join(name.split("/")[:i]) for name in images for i in range(2, name.count("/") + 1)})
    deeper = [name for name in deeper if name.endswith(f"/{split}")]
    raise Mistake(
        f"a split is a folder at the top of the source, as in {split}/CLASS/NAME.jpg. Received split={split!r} and "
        f"{path!r}, which has {', '.join(there[:8])}. Name the split that there is"
        f"{f', such as {deeper[0]!r}' if deeper else ''}, or None for all images."
    )


def sample(items: Sequence[Item], count: int) -> list[Item]:
    """Up to `count` of the items, evenly spread."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(len(items), count)).astype(int))]
