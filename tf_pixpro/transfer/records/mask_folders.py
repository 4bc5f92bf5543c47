"""Data sets of images and class masks in folders: Cityscapes, and CamVid in the same layout."""

from __future__ import annotations

import os

import tensorflow as tf

from tf_pixpro.transfer.records.annotations import Category, Picture, Problems

CITYSCAPES = [
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
]
CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
_UNLABELLED = 255


def cityscapes(root: str, split: str, problems: Problems) -> tuple[list[Picture], list[Category]]:
    """Reads leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelTrainIds.png.

    Args:
      root: folder of the two.
      split: 'train', 'val' or 'test'.
      problems: who is told of an image without a mask, which is left out.

    Returns:
      (list of `Picture`, the 19 classes that are scored, from 0). 255 in a mask is no class.

    Raises:
      FileNotFoundError: if there are no images.

    Source: github.com/mcordts/cityscapesScripts, labels.py. The files of train ids are made by its createTrainIdLabelImgs.
    """
    return _masked(
        root,
        split,
        lambda city, stem: os.path.join(root, "gtFine", split, city, f"{stem}_gtFine_labelTrainIds.png"),
        None,
        problems,
    ), [Category(label, name) for label, name in enumerate(CITYSCAPES)]


def camvid(root: str, split: str, problems: Problems) -> tuple[list[Picture], list[Category]]:
    """Reads CamVid's 11 classes: leftImg8bit as for `cityscapes`, camvid12/SPLIT/SEQUENCE_FRAME.png with 11 for no class.

    Args, returns and raises as `cityscapes`; the classes are the 11 of the SegNet tutorial.
    """
    relabel = bytes([*range(11), *[_UNLABELLED] * 245])
    return _masked(
        root,
        split,
        lambda city, stem: os.path.join(root, "camvid12", split, f"{stem[len(city) + 1 :]}.png"),
        relabel,
        problems,
    ), [Category(label, name) for label, name in enumerate(CAMVID)]


def _masked(root, split, mask_of, relabel, problems):
    suffix = "_leftImg8bit.png"
    images = sorted(tf.io.gfile.glob(os.path.join(root, "leftImg8bit", split, "*", f"*{suffix}")))
    if not images:
        raise FileNotFoundError(f"root must hold leftImg8bit/{split}/CITY/*{suffix}. Received {root!r} without them.")
    pictures = []
    for number, path in enumerate(images, 1):
        city, name = path.split(os.sep)[-2:]
        mask = mask_of(city, name[: -len(suffix)])
        if not tf.io.gfile.exists(mask):
            problems.add("missing mask", path, f"an image needs its mask. There is no {mask}. Left out.")
            continue
        pictures.append(Picture(path, number, classes=mask, relabel=relabel, where=path))
    return pictures
