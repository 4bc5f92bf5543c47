"""Image files for tests of records, and the records read back."""

import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image


def examples_of(folder, name="some"):
    files = sorted(str(path) for path in pathlib.Path(folder).glob(f"{name}-*.tfrecord"))
    return list(tf.data.TFRecordDataset(files))


def picture_file(path, size=(6, 8), kind="PNG", mode="RGB", high=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(0).integers(0, high, (*size, 3), np.uint8)
    Image.fromarray(image).convert(mode).save(path, kind)
    return path
