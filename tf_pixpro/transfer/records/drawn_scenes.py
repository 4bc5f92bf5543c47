"""Synthetic scenes as annotated images, to try every task without a data set."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf
from official.vision.data import tfrecord_lib
from pycocotools import mask as run_lengths

from tf_pixpro.data.scenes import CLASS_NAMES, scene
from tf_pixpro.transfer.records.annotations import AnnotatedImage, Category, ObjectAnnotation


def scenes(
    folder: str, count: int, seed: int = 0, size: tuple[int, int] = (128, 128), objects: tuple[int, int] = (2, 6)
) -> tuple[list[AnnotatedImage], list[Category]]:
    """Draws scenes into PNG files with boxes, outlines and class masks.

    Args:
      folder: gets image and mask files.
      count: how many scenes.
      seed, size, objects: as in `tf_pixpro.data.scenes.scene`.

    Returns:
      (list of `AnnotatedImage`, list of `Category`). Class masks hold 0 for background and 1 to 8, which are
      also the labels of objects.
    """
    tf.io.gfile.makedirs(folder)
    images = []
    for number in range(count):
        drawn = scene(number, seed, size, objects)
        paths = [os.path.join(folder, f"{number:06d}{kind}.png") for kind in ("", "_classes")]
        for path, content in zip(paths, (drawn.image, drawn.semantic)):
            with tf.io.gfile.GFile(path, "wb") as file:
                file.write(tfrecord_lib.encode_mask_as_png(content))
        annotated = []
        for label, box, mask in zip(drawn.labels, drawn.boxes, drawn.masks):
            outline = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
            outline["counts"] = outline["counts"].decode()
            annotated.append(
                ObjectAnnotation(int(label), tuple(map(float, box)), float(mask.sum()), segmentation=outline)
            )
        images.append(
            AnnotatedImage(paths[0], number + 1, tuple(size), tuple(annotated), classes=paths[1], where=paths[0])
        )
    return images, [Category(label, name) for label, name in enumerate(CLASS_NAMES, 1)]
