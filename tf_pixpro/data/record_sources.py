"""Sources of images that lie in records: TFRecords with Model Garden's ImageNet keys, and prepared TFDS data sets."""

from __future__ import annotations

import os
import zlib
from typing import Optional

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from tf_evonorm.mistakes import Mistake
from tf_pixpro.data.interface import Source
from tf_pixpro.data.listing import SAMPLED, sample
from tf_pixpro.data.record_index import record_files, record_index

_SHUFFLED = 10000  # records of a stream that are shuffled together


def tfrecords(
    pattern: str, num_examples: Optional[int] = None, index: Optional[str] = None, num_classes: Optional[int] = None
) -> Source:
    """TFRecords with Model Garden's ImageNet keys; see `tf_pixpro.data.source`.

    Labels are kept as they are; those that are no whole number are ignored.
    """
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

    chosen = np.array(sample(range(opened.num_examples), SAMPLED), np.int64)
    classes = _classes(pattern, tf.data.Dataset.from_tensor_slices(chosen).map(read), num_classes)
    return Source(pattern, opened.num_examples, classes, read=read, record_files=_described(opened))


def _compressed_records(pattern, files, compression, num_examples, index, num_classes, parse):
    """Records that only come in a row."""
    sizes: tuple[int, ...] = ()
    shown: tuple[tuple[str, int, int], ...] = ()
    if num_examples is None:
        opened = record_index(files, compression, pattern, index)
        num_examples, sizes, shown = opened.num_examples, tuple(opened.counts.tolist()), _described(opened)

    def records(name):
        return tf.data.TFRecordDataset(name, compression_type=compression)

    def stream(seed, which=None, skip=0):
        some = tf.data.Dataset.from_tensor_slices(files if which is None else [files[i] for i in which])
        some = some if seed is None else _shuffled(some, len(files), seed)
        some = some.interleave(records, cycle_length=16, deterministic=True)
        some = some if seed is None else _shuffled(some, _SHUFFLED, seed)
        return some.skip(skip).map(lambda record: parse(record, tf.constant(pattern)))

    classes = _classes(pattern, stream(None).take(SAMPLED), num_classes)
    return Source(pattern, num_examples, classes, stream=stream, file_sizes=sizes, record_files=shown)


def _described(index):
    """What `Source.record_files` says of the files of an index."""
    sums = (zlib.crc32(np.int64([count, *offsets]).tobytes()) for count, offsets in zip(index.counts, index.offsets))
    return tuple(zip(map(os.path.basename, index.files), index.sizes.tolist(), sums))


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
        raise Mistake(f"TFRecords must be complete. Received {pattern!r}: {error.message}. Copy them again.") from error


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
    """A prepared TFDS data set with the feature image, and label where there is one; see `tf_pixpro.data.source`.

    It may be written as tfrecord or array_record.
    """
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
    record, shown = _tfds_records(builder, name, split, index)

    def read(number):
        content, shown = record(number)
        example = partial.deserialize_example(content, decoders=decoding.decoders)
        return {"bytes": example["image"], "label": example.get("label", tf.constant(-1, tf.int64)), "name": shown}

    classes = tuple(features["label"].names) if labelled else ()
    return Source(f"tfds:{name}", builder.info.splits[split].num_examples, classes, read=read, record_files=shown)


def _tfds_records(builder, name, split, index):
    """(int64 number -> (serialized example, name), files of TFRecords), from TFRecords or array_record."""
    import tensorflow_datasets

    kind = builder.info.file_format.value
    if kind == "tfrecord":
        pieces = builder.info.splits[split].file_instructions
        files = sorted({piece.filename for piece in pieces})
        opened = record_index(files, folder=index).part([(piece.filename, piece.skip, piece.take) for piece in pieces])
        if opened.num_examples != builder.info.splits[split].num_examples:
            raise Mistake(
                f"TFDS files must be those that were prepared. Received tfds:{name}, split={split!r}, of "
                f"{builder.info.splits[split].num_examples} examples, with {opened.num_examples}. Prepare it again."
            )
        return opened.reader(), _described(opened)
    if kind != "array_record":
        raise Mistake(
            f"a TFDS data set must be written as tfrecord or array_record. Received tfds:{name} as {kind}. "
            f"Prepare it again: tfds build {name} --file_format=array_record"
        )
    method = tensorflow_datasets.decode.DeserializeMethod.RAW_BYTES
    examples = builder.as_data_source(split, deserialize_method=method)

    def record(number):
        content = tf.numpy_function(lambda i: examples[int(i)], [number], tf.string)
        return tf.ensure_shape(content, []), tf.strings.format(f"tfds:{name}, example {{}}", number)

    return record, ()
