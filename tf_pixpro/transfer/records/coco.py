"""MS COCO's JSON annotations, as the many tools that export them write them."""

from __future__ import annotations

import collections
import json
import os
import re
from typing import Optional

import tensorflow as tf
from pycocotools import mask as run_lengths

from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer.records.annotations import (
    AnnotatedImage,
    Category,
    ObjectAnnotation,
    Problems,
    clipped,
    number,
    truth,
)
from tf_pixpro.transfer.records.image_files import ImageFolder, image_size, read_text

_LARGEST = 2**31 - 1


def coco(
    images: str, annotations: str, problems: Problems, names: Optional[list] = None, exif: bool = True
) -> tuple[list[AnnotatedImage], list[Category]]:
    """Reads a COCO instances file.

    Ids of images, categories and annotations may be numbers or text. A size that is missing or 0 is read from the
    image, a missing box from the outline; a missing area is that of the box. Parts of an outline with fewer than three
    points are dropped.

    Args:
      images: folder of the image files; `ImageFolder.find` says how names are looked up.
      annotations: path of `instances_*.json`.
      problems: gets what is wrong: a box outside its image (cut), an empty one, an unknown category or image, a mask of
        another size, a missing or wrong number (the object is left out).
      names: classes that get the numbers 1, 2, ... in this order; those of the file otherwise.
      exif: whether annotations belong to the image as displayed, by its EXIF orientation.

    Returns:
      (list of `AnnotatedImage` in the file's order, those without objects among them; list of `Category`). Labels are
      the file's ids where these are numbers from 1, as COCO's 1 to 90 with gaps: a model for them has 91 classes.
      Otherwise they are 1, 2, ... by id. A category 0 that is the root of a Roboflow export is left out.

    Raises:
      Mistake: if the file is not COCO's JSON, or an id stands for two things.

    Source: cocodataset.org, "Data format", object detection.
    """
    whole = _parsed(annotations)
    folder = ImageFolder(images)
    entries = _unique_images(whole["images"], annotations, problems)
    numbers = _numbers(entries, problems, annotations)
    used = {_key(o.get("category_id")) for o in whole["annotations"] if isinstance(o, dict)}
    labels, categories = _categories(whole["categories"], used, names, annotations, problems)
    paths, sizes = {}, {}
    for key, (entry, name) in entries.items():
        paths[key] = folder.find(name)
        sizes[key] = _size(entry, paths[key], exif)
    objects = collections.defaultdict(list)
    for index, entry in enumerate(whole["annotations"]):
        where = f"{annotations}: annotation {entry.get('id') if isinstance(entry, dict) else f'number {index}'}"
        try:
            found = _object(entry, sizes, labels, where, problems)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, Mistake):
                raise
            what = f"image_id, category_id and bbox or segmentation are needed: {error!r}. Left out."
            problems.add("bad annotation", where, what)
            continue
        if found is not None:
            objects[_key(entry["image_id"])].append(found)
    found = []
    seen: dict[str, str] = {}
    for key, (entry, name) in entries.items():
        path, below = paths[key] or os.path.join(images, name), name
        if seen.setdefault(path, key) != key:
            what = (
                f"a file is one image. Received {path} as image {seen[path]} too. Both are kept, each with its objects."
            )
            problems.add("repeated file", f"{annotations}: image {key}", what)
        if paths[key] and "://" not in images:
            below = os.path.relpath(path, images or ".")
        where = f"{annotations}: image {entry['id']}"
        found.append(AnnotatedImage(path, numbers[key], sizes[key], tuple(objects[key]), where=where, file_name=below))
    return found, categories


def _parsed(path):
    """The file's lists of dicts."""
    try:
        whole = json.loads(read_text(path))
        for key in ("images", "categories"):
            if not all(isinstance(entry, dict) for entry in [*whole[key]]):
                raise TypeError(f"{key} must be a list of objects")
        objects = whole.get("annotations") or []
        if not isinstance(objects, list):
            raise TypeError("annotations must be a list")
        return {**whole, "annotations": objects}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, tf.errors.OpError) as error:
        raise Mistake(
            "annotations must be COCO's JSON with images, categories and annotations. "
            f"Reading {path!r} gave: {' '.join(repr(error).split())[:300]}"
        ) from error


def _key(value):
    """One spelling of an id: 1, 1.0, '1', ' 1 ' and '1.0' are the same; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return (text[:-2] if re.fullmatch(r"\d+\.0", text) else text) or None


def _whole_number(key):
    return int(key) if key.isascii() and key.isdigit() and str(int(key[:20])) == key else None


def _unique_images(listed, annotations, problems):
    """Key of an id -> (entry, file name)."""
    entries: dict = {}
    for index, entry in enumerate(listed):
        key = _key(entry.get("id"))
        names = [entry.get(field) for field in ("file_name", "path", "coco_url", "url")]
        name = next((name for name in names if isinstance(name, str) and _is_text(name)), None)
        if key is None or name is None:
            what = f"an image needs an id and a file_name. Received {entry!r:.200}. Left out."
            problems.add("bad image", f"{annotations}: image number {index}", what)
        elif key in entries and entries[key][1] != name:
            raise Mistake(
                f"image ids must be unique. Received id {key} for {entries[key][1]!r} and {name!r} in {annotations!r}. "
                "Renumber them, together with the image_id of their annotations."
            )
        elif key in entries:
            problems.add("repeated image", f"{annotations}: image {key}", "an image is listed twice. Kept once.")
        else:
            entries[key] = (entry, name)
    if listed and not entries:
        raise Mistake(f"images need ids and file names. Received {problems.summary()} in {annotations!r}.")
    return entries


def _is_text(name):
    """Whether it may name a file: not empty, and not half of a character of UTF-16, as JSON can hold."""
    return bool(name.strip()) and not re.search("[\ud800-\udfff]", name)


def _numbers(entries, problems, annotations):
    """Key of an image id -> number for the records."""
    numbers = {key: _whole_number(key) for key in entries}
    if all(number is not None and number <= _LARGEST for number in numbers.values()):
        return numbers
    problems.note(f"{annotations}: image ids are not whole numbers below 2^31; images are numbered from 1.")
    return {key: index for index, key in enumerate(entries, 1)}


def _categories(listed, used, names, annotations, problems):
    """(key of a category id -> label, list of `Category`)."""
    named: dict = {}
    for entry in listed:
        key, name = _key(entry.get("id")), str(entry.get("name", "")).strip()
        if key is None or not name or named.get(key, name) != name:
            raise Mistake(f"a category needs its own id and a name. Received {entry!r:.200} in {annotations!r}.")
        named[key] = name
    equal = [name for name, count in collections.Counter(named.values()).items() if count > 1]
    if equal and not names:
        problems.note(
            f"{annotations}: several categories are named {', '.join(equal)}; --names=... makes each one class."
        )
    _leave_root(named, listed, used, annotations, problems)
    if names:
        strange = sorted(name for key, name in named.items() if name not in names and key in used)
        if strange:
            raise Mistake(f"names must hold every category in use. Received names without {', '.join(strange)}.")
        by_name = {name: label for label, name in enumerate(names, 1)}
        labels = {key: by_name[name] for key, name in named.items() if name in by_name}
        return labels, [Category(label, name) for name, label in by_name.items()]
    labels = {key: _whole_number(key) for key in named}
    if not all(label and label <= _LARGEST for label in labels.values()):
        numeric = all(label is not None for label in labels.values())
        ordered = sorted(named, key=int) if numeric else list(named)
        labels = {key: label for label, key in enumerate(ordered, 1)}
        problems.note(
            f"{annotations}: category ids are not whole numbers from 1; classes are numbered "
            + ", ".join(f"{label} {named[key]}" for key, label in list(labels.items())[:20])
        )
    return labels, [Category(label, named[key]) for key, label in labels.items()]


def _leave_root(named, listed, used, annotations, problems):
    """Drops category 0 of Roboflow's exports: the name of the data set, above the classes and never used."""
    root = next((entry for entry in listed if _key(entry.get("id")) == "0"), None)
    if root is None or "0" in used or len(named) < 2:
        return
    above = {str(entry.get("supercategory")) for entry in listed if entry is not root}
    if above == {named["0"]} or str(root.get("supercategory")).lower() == "none":
        problems.note(f"{annotations}: category 0, {named['0']!r}, is the unused root of the others and is left out.")
        del named["0"]


def _size(entry, path, exif):
    """(height, width): what the annotation says, else the image's; None if neither does."""
    try:
        size = tuple(int(number(entry.get(side))) for side in ("height", "width"))
        if min(size) > 0:
            return size
    except ValueError:
        pass
    try:
        return image_size(path, exif) if path else None
    except (ValueError, tf.errors.OpError):
        return None


def _object(entry, sizes, labels, where, problems):
    """One object, or None where something is wrong with it."""
    image, label = _key(entry["image_id"]), _key(entry["category_id"])
    if image not in sizes:
        problems.add("unknown image", where, f"an image must be listed. Received id {image}. Left out.")
        return None
    if label not in labels:
        problems.add("unknown class", where, f"a category must be listed. Received id {label}. Left out.")
        return None
    size = sizes[image]
    if size is None:
        return None  # its image is reported by the writer
    outline = _outline(entry.get("segmentation"), where, problems)
    if isinstance(outline, dict):
        if tuple(outline["size"]) != tuple(size):
            expected = f"a mask must have the size of its image, {size}. Received {outline['size']}. Left out."
            problems.add("mask size", where, expected)
            return None
        outline = _filled(outline, where, problems)
    try:
        x, y, width, height = _box(entry, outline)
    except ValueError as error:
        problems.add("bad annotation", where, f"an object needs bbox or segmentation: {error}. Left out.")
        return None
    box = clipped((x, y, x + width, y + height), size, where, problems)
    if box is None:
        return None
    try:
        area = number(entry.get("area"))
    except ValueError:
        area = width * height
    try:
        crowd = truth(entry.get("iscrowd"))
    except ValueError as error:
        problems.add("bad flag", where, f"iscrowd must be 0 or 1: {error}. Taken as 0.")
        crowd = False
    return ObjectAnnotation(labels[label], box, area, crowd=crowd, segmentation=outline, where=where)


def _box(entry, outline):
    """[x, y, width, height] as annotated, or around the outline where it is missing."""
    given = entry.get("bbox")
    if isinstance(given, str):
        given = json.loads(given) if "[" in given else re.findall(r"[^\s,;]+", given)
    if isinstance(given, (list, tuple)) and len(given) == 1 and isinstance(given[0], (list, tuple)):
        (given,) = given
    if isinstance(given, dict) and set(given) == {"x", "y", "width", "height"}:
        given = [given[side] for side in ("x", "y", "width", "height")]
    if not given and outline is not None:
        if isinstance(outline, dict):
            return [float(side) for side in run_lengths.toBbox(_compressed(outline))]
        xs, ys = ([value for line in outline for value in line[axis::2]] for axis in (0, 1))
        return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    if not isinstance(given, (list, tuple)) or len(given) != 4:
        raise Mistake(f"bbox must be four numbers. Received {given!r:.200}")
    return [number(side) if isinstance(side, str) else _checked(side) for side in given]


def _checked(value):
    number(value)
    return value


def _compressed(outline):
    return run_lengths.frPyObjects(outline, *outline["size"]) if isinstance(outline["counts"], list) else outline


def _outline(given, where, problems):
    """Polygons of three points or more or run lengths, in COCO's own spelling; None without any."""
    try:
        if isinstance(given, str):
            given = json.loads(given) if given.strip() else None
        if not given:
            return None
        if isinstance(given, list) and len(given) == 1 and isinstance(given[0], dict):
            (given,) = given
        if isinstance(given, dict):
            return _run_lengths(given)
        lines = [given] if not isinstance(given[0], (list, tuple)) else list(given)
        if len(lines) > 2 and all(len(line) == 2 for line in lines):
            lines = [lines]  # one polygon as a list of points
        lines = [_polygon(line) for line in lines]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        _drop_outline(error, where, problems)
        return None
    sound = [line for line in lines if len(line) >= 6 and len(line) % 2 == 0]
    stray = [line for line in lines if line and line not in sound]
    if stray:
        problems.add(
            "stray polygon", where, f"a polygon needs three points. Received {stray[0]}. That part is left out."
        )
    return sound or None


def _polygon(line):
    if line and all(isinstance(point, (list, tuple)) and len(point) == 2 for point in line):
        line = [value for point in line for value in point]
    return [number(value) if isinstance(value, str) else _checked(value) for value in line]


def _run_lengths(given):
    size, counts = [int(number(side)) for side in given["size"]], given["counts"]
    if len(size) != 2 or min(size) < 1:
        raise Mistake(f"size must be height and width. Received {given['size']!r}")
    if isinstance(counts, str) and counts.strip().startswith("["):
        counts = json.loads(counts)
    if not isinstance(counts, str):
        counts = [int(number(count)) for count in counts]
    return {"size": size, "counts": counts}


def _filled(outline, where, problems):
    """Run lengths if they fill their image, None, reported, otherwise."""
    counts = outline["counts"]
    try:
        if isinstance(counts, str):
            run_lengths.decode(outline)
        elif min(counts, default=0) < 0 or sum(counts) != outline["size"][0] * outline["size"][1]:
            raise ValueError(f"counts must fill the image of {outline['size']}. Their sum is {sum(counts)}")
    except ValueError as error:
        _drop_outline(error, where, problems)
        return None
    return outline


def _drop_outline(error, where, problems):
    what = f"a mask must be a list of polygons or run lengths: {error}. The object keeps its box alone."
    problems.add("bad mask", where, what)
