"""MS COCO's JSON annotations."""

from __future__ import annotations

import collections
import json
import os

import tensorflow as tf

from tf_pixpro.transfer.data.pictures import Category, Picture, Problems, Thing, clipped


def coco(images: str, annotations: str, problems: Problems) -> tuple[list[Picture], list[Category]]:
    """Reads a COCO instances file.

    Args:
      images: folder of the image files.
      annotations: path of `instances_*.json`.
      problems: who is told what is wrong: a box outside its image (cut), an empty one, an unknown category or image (left out).

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
            listed, categories, objects = whole["images"], whole["categories"], whole["annotations"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"annotations must be COCO's JSON with images, categories and annotations. Reading {annotations!r} gave: {error!r}"
            ) from error
    categories = [Category(c["id"], c["name"]) for c in categories]
    known = {category.label for category in categories}
    sizes = {image["id"]: (image["height"], image["width"]) for image in listed}
    if len(sizes) < len(listed) or min(known, default=1) < 1:
        raise ValueError(
            f"image ids must be unique and category ids at least 1. Received {len(listed)} images with {len(sizes)} ids and "
            f"categories {sorted(known)} in {annotations!r}."
        )
    things = collections.defaultdict(list)
    for entry in objects:
        where = f"{annotations}: annotation {entry.get('id')}"
        if entry["image_id"] not in sizes:
            problems.add("unknown image", where, f"an image must be listed. Received id {entry['image_id']}. Left out.")
        elif entry["category_id"] not in known:
            problems.add(
                "unknown class", where, f"a category must be listed. Received id {entry['category_id']}. Left out."
            )
        elif not _fits(entry.get("segmentation"), sizes[entry["image_id"]]):
            problems.add(
                "mask size",
                where,
                f"a mask must have the size of its image, {sizes[entry['image_id']]}. Received {entry['segmentation']['size']}. Left out.",
            )
        else:
            x, y, width, height = entry["bbox"]
            box = clipped((x, y, x + width, y + height), sizes[entry["image_id"]], where, problems)
            if box is not None:
                things[entry["image_id"]].append(
                    Thing(
                        entry["category_id"],
                        box,
                        float(entry.get("area", width * height)),
                        crowd=bool(entry.get("iscrowd", 0)),
                        segmentation=entry.get("segmentation") or None,
                        where=where,
                    )
                )
    pictures = [
        Picture(
            os.path.join(images, image["file_name"]),
            int(image["id"]),
            sizes[image["id"]],
            tuple(things[image["id"]]),
            where=f"{annotations}: image {image['id']}",
        )
        for image in listed
    ]
    return pictures, categories


def _fits(segmentation, size):
    """Run lengths say for which size they are; polygons do not."""
    return not isinstance(segmentation, dict) or tuple(segmentation["size"]) == size
