"""Small sources of images for tests, and the batches that are made of them."""

import io
import zipfile

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_pixpro import data


def jpeg(number: int, size=(60, 48)) -> bytes:
    generator = np.random.default_rng(number)
    blocks = generator.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize(size).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def zip_of(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def records(path, files, key="image/encoded"):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, content in enumerate(files.values()):
            feature = {
                key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[content])),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 2])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return path


def compressed(folder, counts, compression="GZIP"):
    """Files of so many records each, whose labels are their numbers over all files."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for file, count in enumerate(counts):
        with tf.io.TFRecordWriter(str(folder / f"{file}.tfrecord"), tf.io.TFRecordOptions(compression)) as writer:
            for _ in range(count):
                feature = {
                    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"%d" % number])),
                    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
                number += 1
    return data.source(folder / "*.tfrecord")


def batches(source, count, **options):
    options = {"size": (16, 16), "global_batch": 4, "seed": 5, **options}
    return [tf.nest.map_structure(np.array, b) for b in data.pretrain_dataset(source, **options).take(count)]


def labels(source, count, pipelines=1, part=0, **options):
    context = tf.distribute.InputContext(pipelines, part, pipelines) if pipelines > 1 else None
    options = {"global_batch": 8, "seed": 3, "input_context": context, **options}
    batches = data.training_dataset(source, lambda example, seed: example["label"], **options)
    return np.concatenate(list(batches.take(count).as_numpy_iterator())).tolist()


def assert_same(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two):
        for name in ("view1", "view2", "box1", "box2"):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
