"""Sources of encoded images: a folder, a zip, TFRecords, a TFDS data set, synthetic scenes. Each is checked before it
is used."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from tf_evonorm.mistakes import Mistake
from tf_pixpro.data.listing import choose, endings, is_remote, sample, walk
from tf_pixpro.data.record_index import record_files, record_index
from tf_pixpro.views.decode import MAX_PIXELS, read_header

_CHECKED = 1000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_OTHER_FILES = (".txt", ".json", ".csv", ".xml", ".tar", ".gz.tar", ".tgz", ".rar", ".7z", *endings())
_SCENE_BYTES = 2**28
_SHUFFLED = 10000  # records of a stream that are shuffled together


@dataclasses.dataclass(frozen=True)
class Source:
    """Encoded images with names and, where known, classes. An example is {'bytes': string, 'label': int64 (-1 unknown),
    'name': string}.

    Attributes:
      name: for messages.
      num_examples: how many there are.
      class_names: empty without labels.
      read: int64 index -> example, where images can be picked; else None.
      stream: (seed or None, files or None, skip) -> dataset of the examples of these files once, without the first
        `skip`, shuffled by the int64 seed, where they only come in a row; else None.
      file_sizes: of a stream, where known: number of examples of each file.
      unreadable: names of files that were found to be no images when the source was made.
    """

    name: str
    num_examples: int
    class_names: tuple[str, ...]
    read: Optional[Callable] = None
    stream: Any = None
    file_sizes: tuple[int, ...] = ()
    unreadable: tuple[str, ...] = ()


def source(
    path: str,
    split: Optional[str] = None,
    num_examples: Optional[int] = None,
    min_side: int = 32,
    index: Optional[str] = None,
    num_classes: Optional[int] = None,
    **options: Any,
) -> Source:
    """Makes a source out of a path or name.

    Args:
      path: a folder or a .zip of images (see `tf_pixpro.data.listing`; the folder that holds a file is its class);
        TFRecords, by name or pattern, plain or compressed, with Model Garden's keys `image/encoded`,
        `image/class/label`; 'tfds:NAME'; or 'scenes'. Folders and files may lie in any file system that TensorFlow
        reads, such as gs://.
      split: of a folder or zip: only files below the folder of this name at the top of the source, such as 'train', or
        below a path such as 'images/train'; of TFDS: its split (default 'train').
      num_examples: number of compressed records, which otherwise are counted once; of scenes: how many (default
        2000).
      min_side: least height and width in pixels; a sample of the files is looked at.
      index: folder of the index of TFRecords (see `tf_pixpro.data.record_index`), if not the folder of the records.
      num_classes: of TFRecords, whose labels are below it; otherwise one more than the largest label of 1,000 records,
        which may miss classes where there are hundreds.
      **options: of TFDS: data_dir; of scenes: seed, size.

    Raises:
      FileNotFoundError: if there is nothing at the path.
      Mistake: if it holds no images, wrong keys, files that are no images, images that are too small, or an option is
        unknown.
    """
    path = os.fspath(path)
    if path == "scenes":
        return scenes(num_examples or 2000, **options)
    if path.startswith("tfds:"):
        return tfds(path.removeprefix("tfds:"), split or "train", index=index, **options)
    if options:
        raise Mistake(
            f"a source of files has no options {sorted(options)}. Received path={path!r}. Leave them out, and the "
            "variant `smoke` of a config, which draws its own images."
        )
    _check_file_system(path)
    if os.path.isdir(path) or (is_remote(path) and tf.io.gfile.isdir(path)):
        return folder(path, split, min_side)
    if path.lower().endswith(".zip") or (os.path.isfile(path) and zipfile.is_zipfile(path)):
        return zipped(path, split, min_side)
    if path.lower().endswith(_OTHER_FILES) and os.path.exists(path):
        raise Mistake(f"images come from a folder, a .zip, TFRecords or tfds:NAME. Received the file {path!r}.")
    if record_files(path):
        return tfrecords(path, num_examples, index, num_classes)
    raise FileNotFoundError(
        f"images come from a folder, a .zip, TFRecords or tfds:NAME. Received {path!r}, where there is nothing."
    )


def _check_file_system(path):
    try:
        if is_remote(path):
            tf.io.gfile.stat(path)
    except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError):
        pass  # a pattern; or nothing, which is reported where it is looked for
    except tf.errors.OpError as error:
        raise Mistake(
            f"remote files need a file system that TensorFlow reaches. Received {path!r}: {error.message}. "
            "Check its name, the network and your permissions."
        ) from error


def with_classes(source: Source, class_names: Sequence[str]) -> Source:
    """The same images with labels that are numbers in `class_names`, so that two sets agree by names.

    Args:
      source: with classes, all of them among `class_names`.
      class_names: of the set that a model learns from.

    Raises:
      Mistake: the source has no classes, or one that `class_names` lacks.
    """
    missing = sorted({*source.class_names} - {*class_names})
    if missing or not source.class_names:
        raise Mistake(
            f"classes must be among {len(class_names)} known ones. Received {source.name} with "
            f"{f'also {missing[:5]}' if missing else 'none'}. Rename or remove its folders."
        )
    if tuple(class_names) == source.class_names:
        return source
    position = {name: number for number, name in enumerate(class_names)}
    numbers = tf.constant([-1] + [position[name] for name in source.class_names], tf.int64)

    def renumbered(example):
        return {**example, "label": tf.gather(numbers, example["label"] + 1)}

    read, stream = source.read, source.stream
    return dataclasses.replace(
        source,
        class_names=tuple(class_names),
        read=read and (lambda index: renumbered(read(index))),
        stream=stream and (lambda *which: stream(*which).map(renumbered)),
    )


def folder(path: str, split: Optional[str] = None, min_side: int = 32) -> Source:
    """Images in a folder and its sub-folders, links followed; see `source`."""
    names, labels, classes = choose(path, list(walk(path)), split)
    files = [os.path.join(path, name) for name in names]
    unreadable = _check(path, names, lambda name: _content(os.path.join(path, name)), min_side)
    # As bytes: a name need not be UTF-8.
    table, numbers = tf.constant([os.fsencode(file) for file in files]), tf.constant(labels, tf.int64)

    def read(index):
        file = tf.gather(table, index)
        return {"bytes": tf.io.read_file(file), "label": tf.gather(numbers, index), "name": file}

    return Source(path, len(names), classes, read=read, unreadable=unreadable)


def _content(file):
    if is_remote(file):
        with tf.io.gfile.GFile(file, "rb") as opened:
            return opened.read()
    return pathlib.Path(file).read_bytes()


def zipped(path: str, split: Optional[str] = None, min_side: int = 32) -> Source:
    """Images in a zip, read where they lie; see `source`."""
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"a zip of images is needed. Received {path!r}, where there is nothing.")
    try:
        # Opened once: it may be read from many threads, and its directory is long.
        archive = zipfile.ZipFile(tf.io.gfile.GFile(path, "rb") if is_remote(path) else path)
    except zipfile.BadZipFile as error:
        raise Mistake(f"a zip of images is needed. Received {path!r}: {error}. Make it anew.") from error
    # Some programs of Windows write backslashes, against the format's rule.
    members = {info.filename.replace("\\", "/"): info for info in archive.infolist()}
    names = sorted(name for name in members if not name.endswith("/"))
    names, labels, classes = choose(path, names, split)
    _check_members(path, [members[name] for name in names])
    table, numbers = tf.constant(names), tf.constant(labels, tf.int64)

    def content(name):
        try:
            return archive.read(members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):  # the last: flags that nobody has set
            return b""  # damaged: counted as an image that cannot be decoded

    unreadable = _check(path, names, content, min_side)

    def read(index):
        data = tf.numpy_function(lambda i: content(names[int(i)]), [index], tf.string)
        return {"bytes": tf.ensure_shape(data, []), "label": tf.gather(numbers, index), "name": tf.gather(table, index)}

    return Source(path, len(names), classes, read=read, unreadable=unreadable)


def _check_members(path, members):
    """Refuses what Python's zipfile cannot read."""
    for info in members:
        if info.flag_bits & 1:
            raise Mistake(
                f"a zip must not be encrypted. Received {path!r}, whose {info.filename} needs a password. "
                "Unpack it into a folder."
            )
        if info.compress_type not in _METHODS:
            name = zipfile.compressor_names.get(info.compress_type, f"method {info.compress_type}")
            raise Mistake(
                f"a zip must be stored, deflated or packed by bzip2 or lzma. Received {path!r}, whose "
                f"{info.filename} is packed by {name}. Unpack it into a folder, or pack it anew."
            )


def tfrecords(
    pattern: str, num_examples: Optional[int] = None, index: Optional[str] = None, num_classes: Optional[int] = None
) -> Source:
    """Records with Model Garden's ImageNet keys; see `source`. Labels are kept as they are; those that are no number
    are ignored."""
    files = record_files(pattern)
    if not files:
        raise FileNotFoundError(f"TFRecords are needed. Received {pattern!r}, which matches no file.")
    compression, first = _first_record(files[0])
    features = tf.train.Example.FromString(first).features.feature
    if "image/encoded" not in features:
        raise Mistake(
            f"records need the key 'image/encoded'. Received {files[0]!r} with "
            f"{', '.join(sorted(features)) or 'no keys'}."
        )
    keys = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    stored = features.get("image/class/label")
    if stored is None or len(stored.int64_list.value) == 1:
        keys["image/class/label"] = tf.io.FixedLenFeature([], tf.int64, -1)
    else:
        tf.get_logger().warning("%s: labels are ignored, since image/class/label is not one whole number", pattern)

    def parse(record, name):
        example = tf.io.parse_single_example(record, keys)
        number = example.get("image/class/label", tf.constant(-1, tf.int64))
        return {"bytes": example["image/encoded"], "label": number, "name": name}

    if compression:
        return _compressed_records(pattern, files, compression, num_examples, index, num_classes, parse)
    opened = record_index(files, pattern=pattern, folder=index)
    if num_examples not in (None, opened.num_examples):
        raise Mistake(
            f"num_examples must be the number of records. Received {num_examples} and {pattern!r} with "
            f"{opened.num_examples}. Leave it out."
        )
    record = opened.reader()

    def read(number):
        return parse(*record(number))

    chosen = np.linspace(0, opened.num_examples - 1, min(opened.num_examples, _CHECKED)).astype(np.int64)
    classes = _classes(pattern, tf.data.Dataset.from_tensor_slices(chosen).map(read), num_classes)
    return Source(pattern, opened.num_examples, classes, read=read)


def _compressed_records(pattern, files, compression, num_examples, index, num_classes, parse):
    """Records that only come in a row."""
    sizes: tuple[int, ...] = ()
    if num_examples is None:
        opened = record_index(files, compression, pattern, index)
        num_examples, sizes = opened.num_examples, tuple(opened.counts.tolist())

    def records(name):
        return tf.data.TFRecordDataset(name, compression_type=compression)

    def stream(seed, which=None, skip=0):
        some = tf.data.Dataset.from_tensor_slices(files if which is None else [files[i] for i in which])
        some = some if seed is None else _shuffled(some, len(files), seed)
        some = some.interleave(records, cycle_length=16, deterministic=True)
        some = some if seed is None else _shuffled(some, _SHUFFLED, seed)
        return some.skip(skip).map(lambda record: parse(record, tf.constant(pattern)))

    classes = _classes(pattern, stream(None).take(_CHECKED), num_classes)
    return Source(pattern, num_examples, classes, stream=stream, file_sizes=sizes)


def _shuffled(strings, buffer, seed):
    """Strings in an order that depends on the seed alone; `Dataset.shuffle` mixes TensorFlow's global seed into it."""
    one = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(strings),
        buffer_size=buffer,
        seed=seed,
        seed2=0,
        output_types=[tf.string],
        output_shapes=[[]],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(one, tf.TensorSpec([], tf.string))


def _classes(pattern, examples, count):
    """Names '0', '1', ...: as many as are said, or up to the largest label."""
    try:
        largest = max(int(example["label"]) for example in examples)
        if count is not None and largest >= count:
            raise Mistake(f"labels must be below num_classes. Received num_classes={count}, {largest} in {pattern!r}.")
        return tuple(map(str, range(count if count is not None and largest >= 0 else largest + 1)))
    except tf.errors.DataLossError as error:
        raise Mistake(f"whole TFRecords are needed. Received {pattern!r}: {error.message}. Copy them anew.") from error


def _first_record(file):
    """(compression, the first record) of a file of TFRecords; neither is named in the file."""
    reason = "it is empty"
    for compression in ("", "GZIP", "ZLIB"):
        try:
            first = next(iter(tf.data.TFRecordDataset([file], compression_type=compression).take(1)), None)
            if first is not None:
                tf.train.Example.FromString(first.numpy())
                return compression, first.numpy()
        except (tf.errors.DataLossError, DecodeError) as error:
            reason = getattr(error, "message", str(error))
    raise Mistake(f"TFRecords must hold images. Received {file!r}: {reason}. Pass files of tf.train.Example.")


def tfds(name: str, split: str = "train", data_dir: Optional[str] = None, index: Optional[str] = None) -> Source:
    """A prepared TFDS data set, as tfrecord or array_record, with the features image and label, or image alone; see
    `source`."""
    import tensorflow_datasets

    import tf_pixpro.data.scenes_tfds  # noqa: F401  (registers `synthetic_scenes`)

    try:
        builder = tensorflow_datasets.builder(name, data_dir=data_dir)
        builder.info.splits[split]
    except (tensorflow_datasets.core.DatasetNotFoundError, KeyError, ValueError) as error:
        known = not isinstance(error, tensorflow_datasets.core.DatasetNotFoundError)
        raise Mistake(
            f"a prepared TFDS data set and split are needed. Received tfds:{name}, split={split!r}: "
            f"{str(error).partition('Available datasets')[0].strip()}"
            + (f" If it is not prepared: tfds build {name}" if known else "")
        ) from error
    features = builder.info.features
    if "image" not in features:
        raise Mistake(f"a TFDS data set of images is needed. Received tfds:{name} with {', '.join(features)}.")
    labelled = "label" in features and isinstance(features["label"], tensorflow_datasets.features.ClassLabel)
    decoding = tensorflow_datasets.decode.PartialDecoding(
        {"image": True, **({"label": True} if labelled else {})},
        decoders={"image": tensorflow_datasets.decode.SkipDecoding()},
    )
    partial = decoding.extract_features(features)
    record = _tfds_records(builder, name, split, index)

    def read(number):
        content, shown = record(number)
        example = partial.deserialize_example(content, decoders=decoding.decoders)
        return {"bytes": example["image"], "label": example.get("label", tf.constant(-1, tf.int64)), "name": shown}

    classes = tuple(features["label"].names) if labelled else ()
    return Source(f"tfds:{name}", builder.info.splits[split].num_examples, classes, read=read)


def _tfds_records(builder, name, split, index):
    """int64 number -> (serialized example, name), from TFRecords or array_record."""
    import tensorflow_datasets

    kind = builder.info.file_format.value
    if kind == "tfrecord":
        pieces = builder.info.splits[split].file_instructions
        files = sorted({piece.filename for piece in pieces})
        opened = record_index(files, folder=index).part([(piece.filename, piece.skip, piece.take) for piece in pieces])
        if opened.num_examples != builder.info.splits[split].num_examples:
            raise Mistake(
                f"TFDS files must be those that were prepared. Received tfds:{name}, split={split!r}, of "
                f"{builder.info.splits[split].num_examples} examples, with {opened.num_examples}. Prepare it anew."
            )
        return opened.reader()
    if kind != "array_record":
        raise Mistake(
            f"a TFDS data set must be written as tfrecord or array_record. Received tfds:{name} as {kind}. "
            f"Prepare it anew: tfds build {name} --file_format=array_record"
        )
    method = tensorflow_datasets.decode.DeserializeMethod.RAW_BYTES
    examples = builder.as_data_source(split, deserialize_method=method)

    def record(number):
        content = tf.numpy_function(lambda i: examples[int(i)], [number], tf.string)
        return tf.ensure_shape(content, []), tf.strings.format(f"tfds:{name}, example {{}}", number)

    return record


def scenes(num_examples: int = 2000, seed: int = 0, size: tuple[int, int] = (128, 128)) -> Source:
    """Synthetic scenes, drawn when first asked for; the label is the class of the largest object. See
    `tf_pixpro.data.scenes`."""
    from PIL import Image

    from tf_pixpro.data.scenes import CLASS_NAMES, scene

    @functools.lru_cache(maxsize=max(1, _SCENE_BYTES // (3 * size[0] * size[1])))
    def drawn(index):
        one, buffer = scene(index, seed, tuple(size)), io.BytesIO()
        Image.fromarray(one.image).save(buffer, "BMP")
        return buffer.getvalue(), np.int64(one.main_label - 1)

    def read(index):
        data, label = tf.numpy_function(lambda i: drawn(int(i)), [index], [tf.string, tf.int64])
        name = tf.strings.format("scene {}", index)
        return {"bytes": tf.ensure_shape(data, []), "label": tf.ensure_shape(label, []), "name": name}

    return Source("scenes", num_examples, CLASS_NAMES, read=read)


def _check(path, names, read, min_side):
    """Reads the headers of up to a thousand files, evenly spread; returns the names of those that are no images."""
    unreadable, huge = [], []
    looked = sample(names, _CHECKED)
    for name in looked:
        try:
            header = read_header(read(name))
        except (Mistake, OSError, tf.errors.OpError):
            unreadable.append(name)
            continue
        if min(header.height, header.width) < min_side:
            raise Mistake(
                f"images must have sides of at least {min_side} pixels. Received {name} in {path!r} with "
                f"{header.width}x{header.height}. Remove it or lower min_side."
            )
        if header.height * header.width > MAX_PIXELS:
            huge.append(f"{name} ({header.width}x{header.height})")
    if len(unreadable) == len(looked):
        raise Mistake(f"images are needed. Received {path!r}, where {', '.join(unreadable[:3])} and others are none.")
    if unreadable:
        tf.get_logger().warning(
            "%d of %d files looked at are no images, such as %s", len(unreadable), len(looked), unreadable[0]
        )
    if huge:
        tf.get_logger().warning(
            "%d of %d images looked at have more than %d million pixels and take 3 bytes of memory for each "
            "while they are "
            "decoded, such as %s. Make them smaller if memory is short.",
            len(huge), len(looked), MAX_PIXELS // 10**6, huge[0],
        )  # fmt: skip
    return tuple(unreadable)
