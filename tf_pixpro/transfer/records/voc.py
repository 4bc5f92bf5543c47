"""Pascal VOC's XML annotations, in the development kit's folders or flat as LabelImg, Roboflow and CVAT export them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from xml.etree import ElementTree
from xml.parsers import expat

import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer.records.annotations import (
    AnnotatedImage,
    Category,
    ObjectAnnotation,
    Problems,
    clipped,
    number,
    truth,
)
from tf_pixpro.transfer.records.image_files import ImageFolder, first_folder, folded, image_size, read, read_text

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
    root: str,
    split: str,
    problems: Problems,
    names: Sequence[str] = VOC,
    first: int = 1,
    zero_based_boxes: bool = False,
    exif: bool = True,
) -> tuple[list[AnnotatedImage], list[Category]]:
    """Reads one list of a Pascal VOC folder, or a flat folder of images and XML files.

    The list is ImageSets/Main/SPLIT.txt (or lies in ImageSets/Segmentation, ImageSets or the root). Without any lists,
    the folder SPLIT is taken whole, or the root if there is no such folder. XML files lie in Annotations or beside the
    images; an image is the file of the XML file's own name with any ending, or the one that <filename> names.

    Args:
      root: folder with JPEGImages, Annotations and ImageSets/Main, such as VOCdevkit/VOC2007, or flat.
      split: name of the list or folder, such as 'trainval'.
      problems: gets what is wrong: no XML or a broken one (the image is left out), an unknown class, an empty box (the
        object is left out), a box outside its image (cut), a size that is missing or 0 (read from the image).
      names: the classes; the first gets label 1.
      first: number of the first image; they count on from there. Take another one for a second folder of the same data
        set.
      zero_based_boxes: whether the boxes of the files count pixels from 0.
      exif: whether annotations belong to the image as displayed, by its EXIF orientation.

    Returns:
      (list of `AnnotatedImage`, list of `Category`). Boxes of the files count pixels from 1 (or 0) and include the last
      one; here a pixel is the square behind its number. Difficult objects are kept and marked.

    Raises:
      Mistake: if there is no such list, or no XML file.

    Source: the VOC2007 development kit, section "Annotations".
    """
    labels = {name.strip(): label for label, name in enumerate(names, 1)}
    folders = _Folders(root, split, problems)
    images = []
    for position, entry in enumerate(folders.entries, first):
        path = folders.xml(entry)
        try:
            tree = _parsed(path)
        except (tf.errors.NotFoundError, expat.ExpatError, ValueError, LookupError) as error:
            reason = "there is none" if isinstance(error, tf.errors.NotFoundError) else " ".join(str(error).split())
            problems.add("bad annotation", path, f"an image needs an XML file. {reason}. Left out.")
            continue
        stem = os.path.splitext(os.path.relpath(path, folders.annotations))[0]
        image = folders.image(stem, tree.findtext("filename"))
        size = _size(tree, image, path, exif, problems)
        if size is None:
            continue
        objects = [_object(element, path, size, labels, zero_based_boxes, problems) for element in tree.iter("object")]
        images.append(
            AnnotatedImage(
                image,
                position,
                size,
                tuple(found for found in objects if found is not None),
                where=path,
                file_name=os.path.relpath(image, folders.images),
            )
        )
    return images, [Category(label, name) for name, label in labels.items()]


class _Folders:
    """Where a data set keeps its list, its XML files and its images."""

    def __init__(self, root, split, problems):
        if not tf.io.gfile.isdir(root):
            raise Mistake(f"root must be a folder of images and XML files. Received {root!r}, which is none.")
        lists = first_folder(root, ["ImageSets"])
        places = [os.path.join(lists, "Main"), os.path.join(lists, "Segmentation"), lists] if lists else []
        listing = _existing(os.path.join(place, f"{split}.txt") for place in [*places, root])
        if listing is None and lists:
            raise Mistake(
                f"split must name a file of ImageSets/Main. Received {split!r}: no "
                f"{os.path.join(places[0], split)}.txt. "
                "Pass the name of one of its lists."
            )
        if listing is None:
            root, whole = first_folder(root, [split]) or root, root
            problems.note(f"{whole}: no lists of images; all XML files of {root} are {split!r}.")
        self.annotations = first_folder(root, ["Annotations", "annotation", "xml", "xmls", "labels"]) or root
        self.images = first_folder(root, ["JPEGImages", "images", "image", "PNGImages", "imgs", "img"]) or root
        self._xml, self._images = ImageFolder(self.annotations), ImageFolder(self.images)
        self.entries = _lines(listing) if listing else _xml_files(self._xml)
        if not self.entries:
            raise Mistake(
                f"split must name images. Received {split!r}, and {listing or self.annotations} names none. Pass the "
                "folder that "
                "holds the XML files, or their list."
            )

    def xml(self, entry):
        """Path of the XML file of an entry of the list."""
        for name in _names(entry):
            found = self._xml.listing(os.path.dirname(name)).get(folded(f"{os.path.basename(name)}.xml"), ())
            exact = [file for file in found if os.path.splitext(file)[0] == os.path.basename(name)] or found
            if exact:
                return os.path.join(self.annotations, os.path.dirname(name), exact[0])
        return os.path.join(self.annotations, f"{_flagless(entry)}.xml")

    def image(self, stem, filename):
        """Path of the image of an XML file, whether it is there or not."""
        filename = (filename or "").strip()
        below = re.split(r"[\\/]", filename)[-1]
        if below and os.path.splitext(below)[0] == os.path.basename(stem):
            found = self._images.find(os.path.join(os.path.dirname(stem), below)) or self._images.find(below)
            if found:
                return found
        for name in (stem, os.path.basename(stem)):
            found = self._images.by_stem(name)
            if found:
                return found
        found = self._images.find(filename) or self._images.find(below) if below else None
        if not found and below and not os.path.splitext(below)[1]:
            found = self._images.by_stem(below)
        return found or os.path.join(self.images, below or f"{stem}.jpg")


def _existing(paths):
    return next((path for path in paths if tf.io.gfile.exists(path)), None)


def _lines(listing):
    return [line.strip() for line in read_text(listing).splitlines() if line.strip()]


def _xml_files(folder, below=""):
    found = []
    for names in list(folder.listing(below).values()):
        for name in names:
            path = os.path.join(below, name)
            if name.startswith("."):
                continue
            if name.lower().endswith(".xml"):
                found.append(path)
            elif tf.io.gfile.isdir(os.path.join(folder.path, path)):
                found += _xml_files(folder, path)
    return sorted(found)


def _flagless(entry):
    """An entry of a list of one class, 'NAME 1' or 'NAME -1', without its flag."""
    return re.sub(r"\s+-?[01]$", "", entry)


def _names(entry):
    """Names without ending that an entry of a list may mean, the likeliest first."""
    for line in dict.fromkeys((entry, _flagless(entry))):
        line = line.replace("\\", "/")
        yield line
        yield re.sub(r"\.\w{2,4}$", "", line)
        yield os.path.basename(line)
        yield re.sub(r"\.\w{2,4}$", "", os.path.basename(line))


def _size(tree, image, path, exif, problems):
    """(height, width) of the XML file, or of the image where that says none; None, reported, if neither has one."""
    try:
        size = tuple(int(number((tree.findtext(f"size/{side}") or "").strip())) for side in ("height", "width"))
        if min(size) > 0:
            return size
    except ValueError:
        pass
    try:
        size = image_size(image, exif)
    except (ValueError, tf.errors.OpError) as error:
        missing = isinstance(error, tf.errors.NotFoundError)
        reason = f"there is no {image}" if missing else " ".join(str(error).split())
        problems.add("missing file" if missing else "unreadable file", path, f"an image is needed: {reason}. Left out.")
        return None
    problems.note(f"{path}: no width and height; those of the image are taken, {size[1]}x{size[0]}.")
    return size


def _object(element, path, size, labels, zero_based_boxes, problems):
    where = f"{path}:{element.get('line')}"
    name = (element.findtext("name") or "").strip()
    if name not in labels:
        problems.add(
            "unknown class", where, f"a class must be one of {', '.join(labels)}. Received {name!r}. Left out."
        )
        return None
    try:
        sides = (element.findtext(f"bndbox/{side}") or "" for side in ("xmin", "ymin", "xmax", "ymax"))
        x1, y1, x2, y2 = (number(side.strip()) for side in sides)
    except ValueError:
        problems.add(
            "empty box", where, "an object needs xmin, ymin, xmax and ymax. One is missing or no number. Left out."
        )
        return None
    if zero_based_boxes:
        corners = (x1, y1, *(side if 0 <= end - side < 1 else side + 1 for side, end in ((x2, size[1]), (y2, size[0]))))
    else:
        corners = (x1 - 1, y1 - 1, x2, y2)
    box = clipped(corners, size, where, problems)
    if box is None:
        return None
    try:
        difficult = truth(element.findtext("difficult"))
    except ValueError as error:
        problems.add("bad flag", where, f"difficult must be 0 or 1: {error}. Taken as 0.")
        difficult = False
    area = (box[2] - box[0]) * (box[3] - box[1])
    return ObjectAnnotation(labels[name], box, area, difficult=difficult, where=where)


def _parsed(path: str) -> ElementTree.Element:
    """The root element; every element knows its line, and has its name in lower case without a namespace.

    Raises:
      expat.ExpatError, ValueError, LookupError: if the file is no VOC XML.
      tf.errors.OpError: if it cannot be read.
    """
    content = read(path)
    try:
        root = _elements(content)
    except (expat.ExpatError, ValueError):  # an encoding that the parser lacks, or that the file does not say
        declared = re.match(rb"""\s*<\?xml[^>]*encoding=["']([\w.-]+)["']""", content)
        unicode_mark = content.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf"))
        text = read_text(path) if unicode_mark or not declared else content.decode(declared[1].decode("ascii"))
        root = _elements(re.sub(r"^\s*<\?xml.*?\?>", "", text, flags=re.DOTALL).encode("utf-8"))
    if root.tag != "annotation":
        raise ValueError(f"its first element must be <annotation>, and is <{root.tag}>")
    return root


def _plain(tag):
    return tag.rpartition(":")[2].lower()


def _elements(content):
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = lambda tag, attributes: builder.start(
        _plain(tag), {**attributes, "line": str(parser.CurrentLineNumber)}
    )
    parser.EndElementHandler = lambda tag: builder.end(_plain(tag))
    parser.CharacterDataHandler = builder.data
    parser.Parse(content, True)
    return builder.close()
