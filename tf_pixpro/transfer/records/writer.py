"""Annotated images to TFRecords: a set is replaced as a whole, and a stopped conversion is resumed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence

import tensorflow as tf
from tqdm import tqdm

from tf_evonorm.atomic import atomic_path
from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer.records.annotations import AnnotatedImage, Category, Problems
from tf_pixpro.transfer.records.example import Contents, tf_example
from tf_pixpro.transfer.records.image_files import read
from tf_pixpro.transfer.records.record_sets import check_categories, check_name, shard_files

_VERSION = 2  # of what a shard holds for the same files and annotations


def write_records(
    images: Sequence[AnnotatedImage],
    categories: Sequence[Category],
    folder: str,
    name: str,
    problems: Problems,
    shards: int = 8,
    progress: bool = True,
    exif: bool = True,
    bits: int = 16,
) -> dict:
    """Writes a data set as Model Garden reads it.

    An earlier set of that name is replaced at the end, all its files together. Shards that hold the same already, by
    the contents of images and masks, the annotations and the options, are kept, of an earlier set as of a conversion
    that was stopped.

    Args:
      images: list of `AnnotatedImage`; number i goes into shard i % shards. Broken ones are reported and left out.
      categories: list of `Category`.
      folder: gets NAME-00000-of-00008.tfrecord and so on, NAME.json (checksums, counts, categories) and
        NAME_annotations.json (the same annotations as one COCO file, with `difficult`, which the evaluators read).
      name: of the set, such as 'train'; letters, digits, _ and .
      problems: gets what is wrong: a missing or unreadable image, one of another size than its annotation or mask (all
        left out), an object's mask of another size (the object is left out), an object without an outline among others
        (see `outlined`).
      shards: files to write.
      progress: whether to draw a progress bar on stderr.
      exif: whether images are stored upright, by their EXIF orientation.
      bits: how many of 16 bits per channel are used.

    Returns:
      What NAME.json holds: 'images', 'objects', 'problems' {kind: count}, 'lines', 'notes', 'shards' {file: {'sha256',
      'numbers', ...}}, 'categories'.

    Raises:
      Mistake: if there is nothing to write, with the first reasons; if the name or the classes do not fit the other
        sets in the folder; or at the first problem if `problems.strict`.
    """
    check_name(name)
    if not images or shards < 1:
        raise Mistake(
            f"images and a shard are needed. Received {len(images)} images and shards={shards}. "
            f"{problems.summary()}".strip()
        )
    check_categories(categories, folder, name)
    images = outlined(images, problems)
    tf.io.gfile.makedirs(folder)
    files = _Set(folder, name)
    options = repr((_VERSION, list(categories), exif, bits))
    shards = min(shards, len(images))
    done: dict = {}
    with tqdm(total=len(images), unit="image", desc=name, disable=not progress, dynamic_ncols=True) as bar:
        for shard in range(shards):
            file, mine = f"{name}-{shard:05d}-of-{shards:05d}.tfrecord", images[shard::shards]
            entry = files.same(file, mine, options)
            if entry is None:
                entry = _write_shard(files.staged(file), mine, options, problems.strict, bar, exif, bits)
            else:
                bar.update(len(mine))
            done[file] = entry
            files.remember(done)
    for shard in done.values():
        problems.merge(shard["problems"], shard["lines"])
    written = {number for shard in done.values() for number in shard["numbers"]}
    kept = [image for image in images if image.number in written]
    if not kept:
        files.forget()
        raise Mistake(f"no image could be used, and nothing was written. Received {problems.summary()}")
    summary = {**_summary(kept, categories, problems, done), "exif": exif}
    annotations = _as_coco(kept, categories) if all(image.size for image in kept) else None
    files.publish(done, summary, annotations)
    return summary


def _summary(kept, categories, problems, done):
    return {
        "images": len(kept),
        "objects": sum(len(image.objects) for image in kept),
        "problems": dict(problems.counts),
        "lines": problems.lines,
        "notes": problems.notes,
        "categories": {category.label: category.name for category in categories},
        "shards": done,
    }


def outlined(images: Sequence[AnnotatedImage], problems: Problems) -> list[AnnotatedImage]:
    """Images of which every object has an outline, if any object of the set has one.

    Model Garden's Mask R-CNN takes as many masks as boxes. An object of which only the box is known gets this box as
    its outline, and is reported.
    """
    if not any(one.segmentation is not None for image in images for one in image.objects):
        return list(images)

    def with_outline(one):
        if one.segmentation is not None:
            return one
        x1, y1, x2, y2 = one.box
        problems.add("no outline", one.where, "an object needs an outline as others have one. Its box is its mask.")
        return dataclasses.replace(one, segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]])

    return [dataclasses.replace(image, objects=tuple(map(with_outline, image.objects))) for image in images]


class _Set:
    """The files of a set, and those that are being written to replace them, in a folder .NAME.partial."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self._staging = os.path.join(folder, f".{name}.partial")
        self._before = shard_files(folder, name)
        self._entries = {**_shards(self._path(f"{name}.json")), **_shards(os.path.join(self._staging, "shards.json"))}

    def _path(self, file):
        return os.path.join(self.folder, file)

    def staged(self, file):
        """Where a new shard is written."""
        tf.io.gfile.makedirs(self._staging)
        return os.path.join(self._staging, file)

    def same(self, file, images, options):
        """The entry of a shard that is there and whole and was made from the same; None if there is none."""
        entry = self._entries.get(file)
        if not entry or "source" not in entry:
            return None
        for path in (os.path.join(self._staging, file), self._path(file)):
            if tf.io.gfile.exists(path) and _checksum(path) == entry["sha256"]:
                return entry if entry["source"] == _source(images, options) else None
        return None

    def remember(self, done):
        """Notes which shards are complete, for the next start."""
        tf.io.gfile.makedirs(self._staging)
        _dump(os.path.join(self._staging, "shards.json"), {"shards": {**self._entries, **done}})

    def forget(self):
        """Removes what was being written."""
        if tf.io.gfile.isdir(self._staging):
            tf.io.gfile.rmtree(self._staging)

    def publish(self, done, summary, annotations):
        """Replaces the set.

        A kill in between leaves it without NAME.json; the next start completes it from the shards that are there.
        """
        manifest, coco = (self._path(f"{self.name}{ending}.json") for ending in ("", "_annotations"))
        changed = set(self._before) != set(done) or any(
            tf.io.gfile.exists(os.path.join(self._staging, file)) for file in done
        )
        if changed:
            _remove(manifest)
        for file in self._before:
            if file not in done or tf.io.gfile.exists(os.path.join(self._staging, file)):
                _remove(self._path(file))
        for file in done:
            staged = os.path.join(self._staging, file)
            if tf.io.gfile.exists(staged):
                tf.io.gfile.rename(staged, self._path(file), overwrite=True)
        if annotations is None:
            _remove(coco)
        else:
            _dump(coco, annotations)
        _dump(manifest, summary)
        self.forget()


def _shards(manifest):
    try:
        found = json.loads(read(manifest))["shards"]
    except (tf.errors.OpError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _remove(path):
    if tf.io.gfile.exists(path):
        tf.io.gfile.remove(path)


def _write_shard(path, images, options, strict, bar, exif, bits):
    problems, numbers = Problems(strict), []
    digest = hashlib.sha256(options.encode())
    with atomic_path(path) as partial, tf.io.TFRecordWriter(partial) as writer:
        for image in images:
            contents = Contents(image)
            digest.update(repr(image).encode("utf-8", "surrogateescape") + contents.digest())
            example = tf_example(image, contents, problems, exif, bits)
            if example is not None:
                writer.write(example.SerializeToString())
                numbers.append(image.number)
            bar.update()
    return {
        "sha256": _checksum(path),
        "source": digest.hexdigest(),
        "numbers": numbers,
        "problems": dict(problems.counts),
        "lines": problems.lines,
    }


def _source(images, options):
    """SHA-256 of everything that a shard is made from."""
    digest = hashlib.sha256(options.encode())
    for image in images:
        digest.update(repr(image).encode("utf-8", "surrogateescape") + Contents(image).digest())
    return digest.hexdigest()


def _as_coco(images, categories):
    """The annotations as one COCO file."""
    annotations = [
        {
            "id": number,
            "image_id": image.number,
            "category_id": one.label,
            "bbox": [one.box[0], one.box[1], one.box[2] - one.box[0], one.box[3] - one.box[1]],
            "area": one.area,
            "iscrowd": int(one.crowd),
            "difficult": int(one.difficult),
            **({"segmentation": one.segmentation} if one.segmentation else {}),
        }
        for number, (image, one) in enumerate(((i, o) for i in images for o in i.objects), 1)
    ]
    listed = [
        {
            "id": image.number,
            "file_name": image.file_name or os.path.basename(image.path),
            "height": image.size[0],
            "width": image.size[1],
        }
        for image in images
    ]
    return {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": category.label, "name": category.name} for category in categories],
    }


def _checksum(path):
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _dump(path, content):
    with atomic_path(path) as partial, tf.io.gfile.GFile(partial, "w") as file:
        json.dump(content, file)
