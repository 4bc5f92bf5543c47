"""Sources of encoded images: a folder, a zip, TFRecords, a TFDS data set, synthetic scenes. Each is checked before it is used."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import pathlib
import zipfile
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
_CHECKED = 1000


@dataclasses.dataclass(frozen=True)
class Source:
    """Encoded images with names and, where known, classes. An example is {'bytes': string, 'label': int64 (-1 unknown), 'name': string}.

    Attributes:
      name: for messages.
      num_examples: how many there are.
      class_names: empty without labels.
      read: int64 index -> example, where images can be picked; else None.
      stream: seed or None -> dataset of all examples once, shuffled by the seed, where they only come in a row; else None.
    """

    name: str
    num_examples: int
    class_names: tuple[str, ...]
    read: Optional[Callable] = None
    stream: Any = None


def source(
    path: str, split: Optional[str] = None, num_examples: Optional[int] = None, min_side: int = 32, **options: Any
) -> Source:
    """Makes a source out of a path or name.

    Args:
      path: a folder or a .zip of JPEG, PNG, BMP or GIF (the folder that holds a file is its class); a pattern of TFRecords with Model Garden's keys
        `image/encoded`, `image/class/label`; 'tfds:NAME'; or 'scenes'.
      split: of a folder or zip: only files below a folder of this name, such as 'train'; of TFDS: its split (default 'train').
      num_examples: number of records, which otherwise are counted once; of scenes: how many (default 2000).
      min_side: least height and width in pixels; a sample of the files is looked at.
      **options: of TFDS: data_dir; of scenes: seed, size.

    Raises:
      FileNotFoundError: if there is nothing at the path.
      ValueError: if it holds no images, wrong keys, files that are no images, images that are too small, or an option is unknown.
    """
    path = os.fspath(path)
    if path == "scenes":
        return scenes(num_examples or 2000, **options)
    if path.startswith("tfds:"):
        return tfds(path.removeprefix("tfds:"), split or "train", **options)
    if options:
        raise ValueError(
            f"a source of files has no options {sorted(options)}. Received path={path!r}. Leave them out, and the variant "
            "`smoke` of a config, which draws its own images."
        )
    if os.path.isdir(path):
        return folder(path, split, min_side)
    if path.endswith(".zip"):
        return zipped(path, split, min_side)
    if tf.io.gfile.glob(path) and ("*" in path or "tfrecord" in os.path.basename(path)):
        return tfrecords(path, num_examples)
    if os.path.exists(path):
        raise ValueError(f"images come from a folder, a .zip, TFRecords or tfds:NAME. Received the file {path!r}.")
    raise FileNotFoundError(
        f"images come from a folder, a .zip, TFRecords or tfds:NAME. Received {path!r}, where there is nothing."
    )


def folder(path: str, split: Optional[str] = None, min_side: int = 32) -> Source:
    """Images in a folder and its sub-folders; see `source`."""
    root = pathlib.Path(path)
    names = sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())
    names, labels, classes = _chosen(path, names, split)
    _check(path, names, lambda name: (root / name).read_bytes(), min_side)
    table, numbers = tf.constant([str(root / name) for name in names]), tf.constant(labels, tf.int64)

    def read(index):
        file = tf.gather(table, index)
        return {"bytes": tf.io.read_file(file), "label": tf.gather(numbers, index), "name": file}

    return Source(path, len(names), classes, read=read)


def zipped(path: str, split: Optional[str] = None, min_side: int = 32) -> Source:
    """Images in a zip, read where they lie; see `source`."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"a zip of images is needed. Received {path!r}, where there is nothing.")
    try:
        archive = zipfile.ZipFile(path)  # opened once: it may be read from many threads, and its directory is long
    except zipfile.BadZipFile as error:
        raise ValueError(f"a zip of images is needed. Received {path!r}: {error}. Make it anew.") from error
    names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    names, labels, classes = _chosen(path, names, split)
    _check(path, names, archive.read, min_side)
    table, numbers = tf.constant(names), tf.constant(labels, tf.int64)

    def read(index):
        data = tf.numpy_function(lambda i: archive.read(names[int(i)]), [index], tf.string)
        return {"bytes": tf.ensure_shape(data, []), "label": tf.gather(numbers, index), "name": tf.gather(table, index)}

    return Source(path, len(names), classes, read=read)


def tfrecords(pattern: str, num_examples: Optional[int] = None) -> Source:
    """Records with Model Garden's ImageNet keys; see `source`. Labels are kept as they are in the records."""
    files = sorted(tf.io.gfile.glob(pattern))
    if not files:
        raise FileNotFoundError(f"TFRecords are needed. Received {pattern!r}, which matches no file.")
    keys = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64, -1),
    }
    try:
        first = next(iter(tf.data.TFRecordDataset(files[:1]).take(1)), None)
    except tf.errors.DataLossError as error:
        raise ValueError(f"TFRecords are needed. Received {files[0]!r}: {error.message}") from error
    if first is None:
        raise ValueError(f"TFRecords must hold images. Received {files[0]!r}, which is empty.")
    found = sorted(tf.train.Example.FromString(first.numpy()).features.feature)
    if "image/encoded" not in found:
        raise ValueError(
            f"records need the key 'image/encoded'. Received {files[0]!r} with {', '.join(found) or 'no keys'}."
        )

    def parse(record):
        example = tf.io.parse_single_example(record, keys)
        return {"bytes": example["image/encoded"], "label": example["image/class/label"], "name": tf.constant(pattern)}

    def stream(seed):
        shards = tf.data.Dataset.from_tensor_slices(files)
        shards = shards if seed is None else shards.shuffle(len(files), seed=seed)
        records = shards.interleave(tf.data.TFRecordDataset, cycle_length=16, deterministic=True)
        return (records if seed is None else records.shuffle(10000, seed=seed)).map(parse)

    if num_examples is None:
        num_examples = sum(1 for _ in tf.data.TFRecordDataset(files))
    largest = max(int(e["label"]) for e in stream(None).take(_CHECKED))
    return Source(pattern, num_examples, tuple(map(str, range(largest + 1))), stream=stream)


def tfds(name: str, split: str = "train", data_dir: Optional[str] = None) -> Source:
    """A prepared TFDS data set with the features image and label, or image alone; see `source`."""
    import tensorflow_datasets

    import tf_pixpro.data.scenes_tfds  # noqa: F401  (registers `synthetic_scenes`)

    try:
        builder = tensorflow_datasets.builder(name, data_dir=data_dir)
        builder.info.splits[split]
    except (tensorflow_datasets.core.DatasetNotFoundError, KeyError, ValueError) as error:
        known = not isinstance(error, tensorflow_datasets.core.DatasetNotFoundError)
        raise ValueError(
            f"a prepared TFDS data set and split are needed. Received tfds:{name}, split={split!r}: "
            f"{str(error).partition('Available datasets')[0].strip()}"
            + (f" If it is not prepared: tfds build {name}" if known else "")
        ) from error
    features = builder.info.features
    if "image" not in features:
        raise ValueError(f"a TFDS data set of images is needed. Received tfds:{name} with {', '.join(features)}.")
    labelled = "label" in features and isinstance(features["label"], tensorflow_datasets.features.ClassLabel)

    def stream(seed):
        decoders = tensorflow_datasets.decode.PartialDecoding(
            {"image": True, **({"label": True} if labelled else {})},
            decoders={"image": tensorflow_datasets.decode.SkipDecoding()},
        )
        config = tensorflow_datasets.ReadConfig(shuffle_seed=seed, interleave_cycle_length=16)
        data = builder.as_dataset(split, shuffle_files=seed is not None, decoders=decoders, read_config=config)
        data = data if seed is None else data.shuffle(10000, seed=seed)
        unknown = tf.constant(-1, tf.int64)
        return data.map(
            lambda e: {"bytes": e["image"], "label": e.get("label", unknown), "name": tf.constant(f"tfds:{name}")}
        )

    classes = tuple(features["label"].names) if labelled else ()
    return Source(f"tfds:{name}", builder.info.splits[split].num_examples, classes, stream=stream)


def scenes(num_examples: int = 2000, seed: int = 0, size: tuple[int, int] = (128, 128)) -> Source:
    """Synthetic scenes, drawn when first asked for; the label is the class of the largest object. See `tf_pixpro.data.scenes`."""
    from PIL import Image

    from tf_pixpro.data.scenes import CLASS_NAMES, scene

    @functools.cache
    def drawn(index):
        one, buffer = scene(index, seed, tuple(size)), io.BytesIO()
        Image.fromarray(one.image).save(buffer, "BMP")
        return buffer.getvalue(), np.int64(one.main_label - 1)

    def read(index):
        data, label = tf.numpy_function(lambda i: drawn(int(i)), [index], [tf.string, tf.int64])
        name = tf.strings.format("scene {}", index)
        return {"bytes": tf.ensure_shape(data, []), "label": tf.ensure_shape(label, []), "name": name}

    return Source("scenes", num_examples, CLASS_NAMES, read=read)


def _chosen(path, names, split):
    """(images of the split, their labels, class names); a class is the folder that holds the file."""
    images = [name for name in names if name.lower().endswith(ENDINGS) and "__MACOSX" not in name]
    if not images:
        raise ValueError(f"images ({', '.join(ENDINGS)}) are needed. Received {path!r} with {len(names)} other files.")
    if split is not None:
        inside = [name for name in images if split in name.split("/")[:-1]]
        if not inside:
            folders = sorted({part for name in images for part in name.split("/")[:-2]}) or ["no folders of folders"]
            raise ValueError(
                f"a split is a folder in the source, as in {split}/CLASS/NAME.jpg. Received split={split!r} and {path!r}, which has "
                f"{', '.join(folders[:8])}. Name the split that there is, or None for all images."
            )
        images = inside
    parents = [name.split("/")[-2] if "/" in name else "" for name in images]
    classes = tuple(sorted(set(parents)))
    if len(classes) < 2:
        return images, [-1] * len(images), ()
    return images, [classes.index(parent) for parent in parents], classes


def _check(path, names, read, min_side):
    """Looks at the headers of up to a thousand files, evenly spread."""
    from PIL import Image, UnidentifiedImageError

    unreadable = []
    looked = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, min(len(names), _CHECKED)).astype(int))]
    for name in looked:
        try:
            with Image.open(io.BytesIO(read(name))) as image:
                sides = image.size
        except (UnidentifiedImageError, OSError, zipfile.BadZipFile):
            unreadable.append(name)
            continue
        if min(sides) < min_side:
            raise ValueError(
                f"images must have sides of at least {min_side} pixels. Received {name} in {path!r} with {sides[0]}x{sides[1]}. "
                "Remove it or lower min_side."
            )
    if len(unreadable) == len(looked):
        raise ValueError(
            f"images are needed. Received {path!r}, where {', '.join(unreadable[:3])} and others are none."
        )
    if unreadable:
        tf.get_logger().warning(
            "%d of %d files looked at are no images, such as %s", len(unreadable), len(looked), unreadable[0]
        )
