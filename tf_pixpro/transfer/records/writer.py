"""Pictures to TFRecords: shards with checksums, written once, gone on with after a stop, and the annotations that scores are taken on."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from official.vision.data import tfrecord_lib
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as run_lengths
from tqdm import tqdm

from tf_evonorm.atomic import whole
from tf_pixpro.transfer.records.annotations import Category, Picture, Problems

_feature = tfrecord_lib.convert_to_feature


def write_records(
    pictures: Sequence[Picture],
    categories: Sequence[Category],
    folder: str,
    name: str,
    problems: Problems,
    shards: int = 8,
    progress: bool = True,
) -> dict:
    """Writes a data set as Model Garden reads it.

    Args:
      pictures: list of `Picture`; number i goes into shard i % shards. Broken ones are told and left out.
      categories: list of `Category`.
      folder: gets NAME-00000-of-00008.tfrecord and so on, NAME.json (checksums, counts, categories) and NAME_annotations.json (the
        same annotations as one COCO file, with `difficult`, which the evaluators read).
      name: of the split, such as 'train'.
      problems: who is told what is wrong: a missing or unreadable image, one of another size than its annotation or mask (all left out),
        an object's mask of another size (the object is left out).
      shards: files to write.
      progress: whether to draw a progress bar on stderr.

    Returns:
      What NAME.json holds: 'pictures', 'things', 'problems' {kind: count}, 'shards' {file: {'sha256', 'numbers', ...}}, 'categories'.
      Shards of an earlier start with the same pictures and right checksums are kept as they are.

    Raises:
      ValueError: if there are no pictures or fewer than one shard; or at the first problem if `problems.strict`.
    """
    if not pictures or shards < 1:
        raise ValueError(f"pictures and a shard are needed. Received {len(pictures)} pictures and shards={shards}.")
    shards = min(shards, len(pictures))
    tf.io.gfile.makedirs(folder)
    manifest = os.path.join(folder, f"{name}.json")
    identity = hashlib.sha256(repr((pictures, categories, shards)).encode()).hexdigest()
    done = _done(manifest, folder, identity)
    with tqdm(total=len(pictures), unit="image", desc=name, disable=not progress, dynamic_ncols=True) as bar:
        for shard in range(shards):
            file, mine = f"{name}-{shard:05d}-of-{shards:05d}.tfrecord", pictures[shard::shards]
            if file in done:
                bar.update(len(mine))
                continue
            done[file] = _write_shard(os.path.join(folder, file), mine, problems.strict, bar)
            _dump(manifest, {"identity": identity, "shards": done})
    written = {number for shard in done.values() for number in shard["numbers"]}
    kept = [picture for picture in pictures if picture.number in written]
    for shard in done.values():
        problems.take(shard["problems"], shard["lines"])
    if all(picture.size for picture in kept):
        _dump(os.path.join(folder, f"{name}_annotations.json"), _as_coco(kept, categories))
    summary = {
        "identity": identity,
        "pictures": len(kept),
        "things": sum(len(p.things) for p in kept),
        "problems": dict(problems.counts),
        "lines": problems.lines,
        "categories": {c.label: c.name for c in categories},
        "shards": done,
    }
    _dump(manifest, summary)
    return summary


def tf_example(picture: Picture, problems: Problems) -> tf.train.Example | None:
    """One picture as Model Garden's decoders take it, or None if its files are broken.

    Returns:
      A `tf.train.Example` with image/encoded, image/height, image/width, image/source_id; image/object/bbox/{xmin,xmax,ymin,ymax}
      (fractions), class/label, area, is_crowd and, where all objects have an outline, mask (PNG); image/segmentation/class/encoded (PNG).
    """
    try:
        encoded, kind, size = _image(picture)
        if picture.classes:
            mask = _class_mask(picture, size)
    except (OSError, tf.errors.OpError, UnidentifiedImageError, SyntaxError) as error:
        missing = isinstance(error, tf.errors.NotFoundError)
        what = "there is none" if missing else " ".join(str(error).split())
        problems.add(
            "missing file" if missing else "unreadable file",
            picture.where,
            f"image and mask must be readable: {what}. Left out.",
        )
        return None
    except _WrongSize as error:
        problems.add("wrong size", picture.where, f"{error} Left out.")
        return None
    height, width = size
    features = tfrecord_lib.image_info_to_feature_dict(
        height, width, os.path.basename(picture.path), picture.number, encoded, kind
    )
    things = picture.things
    x1, y1, x2, y2 = np.array([thing.box for thing in things], np.float64).reshape(-1, 4).T
    floats = {"bbox/xmin": x1 / width, "bbox/xmax": x2 / width, "bbox/ymin": y1 / height, "bbox/ymax": y2 / height}
    floats["area"] = [thing.area for thing in things]
    masks = []
    if all(thing.segmentation for thing in things):
        try:
            masks = [tfrecord_lib.encode_mask_as_png(_outline(thing.segmentation, size)) for thing in things]
        except (ValueError, TypeError) as error:
            problems.add("bad mask", picture.where, f"run lengths must fill the image: {error}. Left out.")
            return None
    features.update({f"image/object/{key}": _feature(list(value), "float_list") for key, value in floats.items()})
    features["image/object/class/label"] = _feature([thing.label for thing in things], "int64_list")
    features["image/object/is_crowd"] = _feature([int(thing.crowd) for thing in things], "int64_list")
    if all(thing.segmentation for thing in things):
        features["image/object/mask"] = _feature(masks, "bytes_list")
    if picture.classes:
        features["image/segmentation/class/encoded"] = _feature(tfrecord_lib.encode_mask_as_png(mask))
    return tf.train.Example(features=tf.train.Features(feature=features))


class _WrongSize(Exception):
    """An image, annotation or mask of another size."""


def _image(picture):
    """Bytes, format and (height, width) of an image file that TensorFlow can read."""
    encoded = _read(picture.path)
    image = Image.open(io.BytesIO(encoded))
    image.load()
    size = (image.height, image.width)
    if picture.size and size != tuple(picture.size):
        raise _WrongSize(
            f"an image must have the size of its annotation, {picture.size}. Received {size} (height, width)."
        )
    if image.format not in ("JPEG", "PNG") or image.mode not in ("L", "RGB"):
        stored = io.BytesIO()
        image.convert("RGB").save(stored, "PNG")
        return stored.getvalue(), "png", size
    return encoded, image.format.lower(), size


def _class_mask(picture, size):
    mask = np.asarray(Image.open(io.BytesIO(_read(picture.classes))))
    if mask.shape != size:
        raise _WrongSize(f"a mask must have the size of its image, {size}. Received {mask.shape}.")
    return np.frombuffer(picture.relabel, np.uint8)[mask] if picture.relabel else mask.astype(np.uint8)


def _outline(segmentation, size):
    """COCO's polygons or run lengths as a mask [height, width] of 0 and 1."""
    height, width = size
    if isinstance(segmentation, list):
        segmentation = run_lengths.merge(run_lengths.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = run_lengths.frPyObjects(segmentation, height, width)
    return run_lengths.decode(segmentation)


def _write_shard(path, pictures, strict, bar):
    problems, numbers = Problems(strict), []
    with whole(path) as partial, tf.io.TFRecordWriter(partial) as writer:
        for picture in pictures:
            example = tf_example(picture, problems)
            if example is not None:
                writer.write(example.SerializeToString())
                numbers.append(picture.number)
            bar.update()
    return {"sha256": _checksum(path), "numbers": numbers, "problems": dict(problems.counts), "lines": problems.lines}


def _done(manifest, folder, identity):
    """Shards of an earlier start that are whole."""
    try:
        before = json.loads(_read(manifest))
    except (tf.errors.NotFoundError, ValueError):
        return {}
    whole = {}
    for file, entry in before["shards"].items() if before.get("identity") == identity else ():
        path = os.path.join(folder, file)
        if tf.io.gfile.exists(path) and _checksum(path) == entry["sha256"]:
            whole[file] = entry
    return whole


def _as_coco(pictures, categories):
    """The annotations as one COCO file."""
    annotations = [
        {
            "id": number,
            "image_id": picture.number,
            "category_id": thing.label,
            "bbox": [thing.box[0], thing.box[1], thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]],
            "area": thing.area,
            "iscrowd": int(thing.crowd),
            "difficult": int(thing.difficult),
            **({"segmentation": thing.segmentation} if thing.segmentation else {}),
        }
        for number, (picture, thing) in enumerate(((p, t) for p in pictures for t in p.things), 1)
    ]
    images = [
        {"id": p.number, "file_name": os.path.basename(p.path), "height": p.size[0], "width": p.size[1]}
        for p in pictures
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": category.label, "name": category.name} for category in categories],
    }


def _checksum(path):
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(path):
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


def _dump(path, content):
    with whole(path) as partial, tf.io.gfile.GFile(partial, "w") as file:
        json.dump(content, file)
