"""MS COCO's JSON annotations."""

from __future__ import annotations

import collections
import json
import math
import os

import tensorflow as tf

from tf_pixpro.transfer.records.annotations import Category, Picture, Problems, Thing, clipped


def coco(images: str, annotations: str, problems: Problems) -> tuple[list[Picture], list[Category]]:
    """Reads a COCO instances file.

    Args:
      images: folder of the image files.
      annotations: path of `instances_*.json`.
      problems: who is told what is wrong: a box outside its image (cut), an empty one, an unknown category or
        image, a mask of another size or none at all, a missing or wrong number (the object is left out).

    Returns:
      (list of `Picture` in the file's order, those without objects among them; list of `Category`). Labels are COCO's category ids, 1 to
      90 with gaps, as in Model Garden's own conversion: a model for them has 91 classes.

    Raises:
      ValueError: if the file is not COCO's JSON, has an image id twice, or a category id below 1.

    Source: cocodataset.org, "Data format", object detection.
    """
    with tf.io.gfile.GFile(annotations) as file:
        try:
            whole = json.load(file)
            listed, objects = whole["images"], [*whole["annotations"]]
            categories = [Category(int(c["id"]), str(c["name"])) for c in whole["categories"]]
            sizes = {int(i["id"]): (int(i["height"]), int(i["width"])) for i in listed}
            names = [str(image["file_name"]) for image in listed]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"annotations must be COCO's JSON with images, categories and annotations. Reading {annotations!r} gave: {error!r}"
            ) from error
    known = {category.label for category in categories}
    if len(sizes) < len(listed) or min(known, default=1) < 1:
        raise ValueError(
            f"image ids must be unique and category ids at least 1. Received {len(listed)} images with {len(sizes)} ids and "
            f"categories {sorted(known)} in {annotations!r}."
        )
    things = collections.defaultdict(list)
    for index, entry in enumerate(objects):
        where = f"{annotations}: annotation {entry.get('id') if isinstance(entry, dict) else f'number {index}'}"
        try:
            thing = _thing(entry, sizes, known, where, problems)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            problems.add("bad annotation", where, f"image_id, category_id and bbox are needed: {error!r}. Left out.")
            continue
        if thing is not None:
            things[entry["image_id"]].append(thing)
    pictures = [
        Picture(
            os.path.join(images, name),
            number,
            sizes[number],
            tuple(things[number]),
            where=f"{annotations}: image {number}",
        )
        for name, number in zip(names, sizes)
    ]
    return pictures, categories


def _thing(entry, sizes, known, where, problems):
    """One object, or None where something is wrong with it."""
    image, label = entry["image_id"], entry["category_id"]
    if image not in sizes:
        problems.add("unknown image", where, f"an image must be listed. Received id {image}. Left out.")
        return None
    if label not in known:
        problems.add("unknown class", where, f"a category must be listed. Received id {label}. Left out.")
        return None
    outline = entry.get("segmentation") or None
    if isinstance(outline, dict) and tuple(outline["size"]) != sizes[image]:
        expected = f"a mask must have the size of its image, {sizes[image]}. Received {outline['size']}. Left out."
        problems.add("mask size", where, expected)
        return None
    if outline is not None and not _sound(outline):
        problems.add("bad mask", where, "a mask must be a list of polygons or run lengths. It is none. Left out.")
        return None
    numbers = [*entry["bbox"], entry.get("area", 0)]
    if len(numbers) != 5 or not all(map(_is_number, numbers)):
        problems.add("bad annotation", where, f"bbox and area must be five numbers. Received {numbers}. Left out.")
        return None
    x, y, width, height = entry["bbox"]
    box = clipped((x, y, x + width, y + height), sizes[image], where, problems)
    if box is None:
        return None
    area, crowd = float(entry.get("area", width * height)), bool(entry.get("iscrowd", 0))
    return Thing(int(label), box, area, crowd=crowd, segmentation=outline, where=where)


def _sound(outline):
    """Polygons of three points or more, or run lengths."""
    if isinstance(outline, dict):
        counts = outline["counts"]
        return isinstance(counts, str) or all(isinstance(n, int) and 0 <= n < 2**31 for n in counts)
    return all(len(line) >= 6 and len(line) % 2 == 0 and all(map(_is_number, line)) for line in outline)


def _is_number(value):
    return isinstance(value, (int, float)) and math.isfinite(value)
