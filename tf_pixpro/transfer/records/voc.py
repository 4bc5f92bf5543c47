"""Pascal VOC's folders: a list of names, an XML file with boxes and a JPEG file for each."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from xml.etree import ElementTree
from xml.parsers import expat

import tensorflow as tf

from tf_pixpro.transfer.records.annotations import Category, Picture, Problems, Thing, clipped

VOC = tuple(
    [
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ]
)


def voc(
    root: str, split: str, problems: Problems, names: Sequence[str] = VOC, first: int = 1
) -> tuple[list[Picture], list[Category]]:
    """Reads one list of a Pascal VOC folder.

    Args:
      root: folder with JPEGImages, Annotations and ImageSets/Main, such as VOCdevkit/VOC2007.
      split: name of the list, such as 'trainval'.
      problems: who is told what is wrong: no XML or a broken one (the picture is left out), an unknown class, an empty box (the object
        is left out), a box outside its image (cut).
      names: the classes; the first gets label 1.
      first: number of the first picture; they count on from there. Take another one for a second folder of the same data set.

    Returns:
      (list of `Picture`, list of `Category`). Boxes of the files count pixels from 1 and include the last one; here a pixel is the
      square behind its number. Difficult objects are kept and marked.

    Raises:
      FileNotFoundError: if there is no such list.

    Source: the VOC2007 development kit, section "Annotations".
    """
    listing = os.path.join(root, "ImageSets", "Main", f"{split}.txt")
    if not tf.io.gfile.exists(listing):
        raise FileNotFoundError(f"split must name a file of ImageSets/Main. Received {split!r}: no {listing!r}.")
    with tf.io.gfile.GFile(listing) as file:
        stems = [line.split()[0] for line in file.read().splitlines() if line.strip()]
    labels = {name: label for label, name in enumerate(names, 1)}
    pictures = []
    for number, stem in enumerate(stems, first):
        path = os.path.join(root, "Annotations", f"{stem}.xml")
        try:
            tree = _parsed(path)
            size = (int(tree.findtext("size/height")), int(tree.findtext("size/width")))
        except (tf.errors.NotFoundError, expat.ExpatError, TypeError, ValueError) as error:
            reason = "there is none" if isinstance(error, tf.errors.NotFoundError) else " ".join(str(error).split())
            problems.add("bad annotation", path, f"an image needs an XML file with its size. {reason}. Left out.")
            continue
        things = [_thing(element, path, size, labels, problems) for element in tree.iter("object")]
        image = os.path.join(root, "JPEGImages", f"{stem}.jpg")
        pictures.append(Picture(image, number, size, tuple(t for t in things if t is not None), where=path))
    return pictures, [Category(label, name) for name, label in labels.items()]


def _thing(element, path, size, labels, problems):
    where = f"{path}:{element.get('line')}"
    name = element.findtext("name")
    if name not in labels:
        problems.add(
            "unknown class", where, f"a class must be one of {', '.join(labels)}. Received {name!r}. Left out."
        )
        return None
    try:
        x1, y1, x2, y2 = (float(element.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
    except (TypeError, ValueError):
        problems.add(
            "empty box", where, "an object needs xmin, ymin, xmax and ymax. One is missing or no number. Left out."
        )
        return None
    box = clipped((x1 - 1, y1 - 1, x2, y2), size, where, problems)
    if box is None:
        return None
    area = (box[2] - box[0]) * (box[3] - box[1])
    difficult = re.sub(r"\s", "", element.findtext("difficult") or "0") == "1"
    return Thing(labels[name], box, area, difficult=difficult, where=where)


def _parsed(path):
    """The root element; every element knows its line."""
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = lambda tag, attributes: builder.start(
        tag, {**attributes, "line": str(parser.CurrentLineNumber)}
    )
    parser.EndElementHandler, parser.CharacterDataHandler = builder.end, builder.data
    with tf.io.gfile.GFile(path, "rb") as file:
        parser.Parse(file.read(), True)
    return builder.close()
