"""Annotated images as their owners ship them to TFRecords: MS COCO, Pascal VOC, Cityscapes, CamVid, images and masks.

python -m experiments.prepare --format=coco --images=coco/train2017 \\
    --annotations=coco/annotations/instances_train2017.json --split=train --output=records/coco
python -m experiments.prepare --format=voc --root=VOCdevkit/VOC2007 --split=trainval --output=records/voc
python -m experiments.prepare --format=voc --names=cat,dog --root=photos --split=train --output=records/photos
python -m experiments.prepare --format=cityscapes --root=cityscapes --split=val --output=records/cityscapes
python -m experiments.prepare --format=masks --names=soil,crop,weed --root=field --split=train --output=records/field
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, Union

from absl import flags

from experiments.launch import session as sessions
from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer import records

FORMATS = ("coco", "voc", "cityscapes", "camvid", "masks")
_NEEDED = {"coco": ("annotations", "images")}  # of every other format: root
_ALLOWED = {"coco": ("names",), "voc": ("names", "zero_based_boxes"), "masks": ("names", "colours")}


def prepare(
    format: str,
    split: str,
    output: str,
    root: Optional[Union[str, Sequence[str]]] = None,
    images: Optional[str] = None,
    annotations: Optional[str] = None,
    names: Optional[Sequence[str]] = None,
    colours: Optional[str] = None,
    zero_based_boxes: bool = False,
    exif: str = "apply",
    bits: int = 16,
    share: float = 1.0,
    shards: int = 8,
    strict: bool = False,
    name: Optional[str] = None,
    progress: bool = True,
) -> dict:
    """Converts one split.

    Args:
      format: 'coco', 'voc', 'cityscapes', 'camvid' or 'masks'.
      split: which list or folder of a data set; of COCO only the name of what is written.
      output: folder of the TFRecords. A set of that name is replaced, a stopped conversion resumed.
      root: folder of the data set, or several of them for 'voc' (2007 and 2012); for COCO the two below instead.
      images, annotations: folder of the images and path of the instances file.
      names: classes: of 'voc' if they are not Pascal's 20, of 'masks' from 0; of 'coco' to number them from 1 in this
        order.
      colours: of 'masks', path of a table of colours if masks are coloured images.
      zero_based_boxes: of 'voc', whether boxes count pixels from 0.
      exif: 'apply' where annotations belong to the images as displayed (every labelling tool), 'ignore' where to the
        stored pixels.
      bits: how many bits of 16-bit images are used, 9 to 16.
      share: take this share of the images, always the same ones: 0.01 for one percent.
      shards: how many files to write.
      strict: whether the first problem is an error.
      name: of what is written, otherwise `split`; other signs than letters, digits, _ and . become _.
      progress: whether to draw a bar.

    Returns:
      The summary, see `tf_pixpro.transfer.records.write_records`.

    Raises:
      Mistake: if arguments of another format are given, or as the readers and the writer say.
    """
    given: dict = {"root": root, "images": images, "annotations": annotations, "names": names, "colours": colours}
    given["zero_based_boxes"] = zero_based_boxes
    _check_arguments(format, {key for key, value in given.items() if value})
    if exif not in ("apply", "ignore"):
        raise Mistake(f"exif must be apply or ignore. Received {exif!r}.")
    problems, upright = records.Problems(strict), exif == "apply"
    found, categories = _read(format, split, given, problems, upright)
    wanted = name or split
    name = records.free_name(wanted)
    if name != wanted:
        problems.note(f"{wanted!r} is written as {name!r}, so that no pattern of another set matches it.")
    if format == "coco" and not names:
        found, categories = records.align_categories(found, categories, output, name, problems)
    if share != 1:
        found = records.fraction(found, share)
    return records.write_records(
        found, categories, output, name, problems, shards, progress=progress, exif=upright, bits=bits
    )


def _check_arguments(format, given):
    if format not in FORMATS:
        raise Mistake(f"format must be one of {', '.join(FORMATS)}. Received {format!r}.")
    needed, allowed = set(_NEEDED.get(format, ("root",))), set(_ALLOWED.get(format, ()))
    if not needed <= given <= needed | allowed:
        takes = " and ".join(f"--{key}" for key in sorted(needed))
        more = "".join(f", --{key} if need be" for key in sorted(allowed))
        received = " ".join(f"--{key}" for key in ("root", "annotations", "images", *_ALL) if key in given)
        raise Mistake(f"--format={format} takes {takes}{more}. Received {received or 'none of them'}.")


_ALL = ("names", "colours", "zero_based_boxes")


def _read(format, split, given, problems, exif):
    root, names = given["root"], given["names"]
    if format == "coco":
        return records.coco(given["images"], given["annotations"], problems, names, exif)
    if format == "voc":
        found, categories = [], []
        for folder in [root] if isinstance(root, str) else root:
            first = found[-1].number + 1 if found else 1
            more, categories = records.voc(
                folder, split, problems, names or records.VOC, first, given["zero_based_boxes"], exif
            )
            found += more
        return found, categories
    if not isinstance(root, str):
        raise Mistake(f"--format={format} takes one --root. Received {', '.join(root)}.")
    if format == "masks":
        return records.masks(root, split, problems, names, given["colours"])
    return {"cityscapes": records.cityscapes, "camvid": records.camvid}[format](root, split, problems)


def _content(format, summary):
    if format in ("coco", "voc"):
        return f"{summary['objects']} objects"
    return f"masks of {len(summary['categories'])} classes"


def _run():
    flags.DEFINE_enum("format", None, list(FORMATS), "Whose layout.", required=True)
    flags.DEFINE_string("split", None, "List or folder of the data set, such as train.", required=True)
    flags.DEFINE_string("output", None, "Folder of the TFRecords.", required=True)
    flags.DEFINE_list("root", None, "Folder of the data set; several, with commas, for VOC.")
    flags.DEFINE_string("images", None, "COCO: folder of the images.")
    flags.DEFINE_string("annotations", None, "COCO: instances_*.json.")
    flags.DEFINE_list("names", None, "The classes, with commas: VOC, masks; COCO to number them.")
    flags.DEFINE_string("colours", None, "Masks: table of colours, lines such as '128 0 0 car'.")
    flags.DEFINE_bool("zero_based_boxes", False, "VOC: boxes count pixels from 0.")
    flags.DEFINE_enum("exif", "apply", ["apply", "ignore"], "Turn images as viewers show them, or take stored pixels.")
    flags.DEFINE_integer("bits", 16, "Bits in use of 16-bit images.", lower_bound=9, upper_bound=16)
    flags.DEFINE_float("share", 1.0, "Share of the images to take, always the same ones.")
    flags.DEFINE_integer("shards", 8, "Files to write.", lower_bound=1)
    flags.DEFINE_bool("strict", False, "End at the first problem.")
    flags.DEFINE_string("name", None, "Name of what is written; the split's otherwise.")
    names = ("format", "split", "output", "root", "images", "annotations", "names", "colours", "zero_based_boxes")
    names += ("exif", "bits", "share", "shards", "strict", "name")

    def start(_):
        given = {key: getattr(flags.FLAGS, key) for key in names}
        if given["root"] and len(given["root"]) == 1:
            (given["root"],) = given["root"]
        summary = prepare(**given)
        for line in summary["notes"][:20] + summary["lines"][:20]:
            print(line)
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(summary["problems"].items())) or "no problems"
        print(f"{summary['images']} images with {_content(given['format'], summary)} into {given['output']}: {listed}")

    sessions.run(start)


if __name__ == "__main__":
    _run()
