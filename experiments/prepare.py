"""Annotated images as their owners ship them to TFRecords, once: MS COCO, Pascal VOC, Cityscapes and CamVid.

python -m experiments.prepare --format=coco --images=coco/train2017 --annotations=coco/annotations/instances_train2017.json \\
    --split=train --output=records/coco
python -m experiments.prepare --format=voc --root=VOCdevkit/VOC2007 --split=trainval --output=records/voc
python -m experiments.prepare --format=cityscapes --root=cityscapes --split=val --output=records/cityscapes
"""

from __future__ import annotations

from absl import flags

from experiments.launch import session as sessions
from tf_pixpro.transfer import records


def prepare(
    format,
    split,
    output,
    root=None,
    images=None,
    annotations=None,
    names=None,
    share=1.0,
    shards=8,
    strict=False,
    name=None,
    progress=True,
):
    """Converts one split.

    Args:
      format: 'coco', 'voc', 'cityscapes' or 'camvid'.
      split: which list or folder of a data set; of COCO only the name of what is written.
      output: folder of the TFRecords; a stopped conversion is gone on with.
      root: folder of the data set, or several of them for 'voc' (2007 and 2012); for COCO the two below instead.
      images, annotations: folder of the images and path of the instances file.
      names: classes of 'voc' if they are not Pascal's 20.
      share: take this share of the pictures, always the same ones: 0.01 for one percent.
      shards: how many files to write.
      strict: whether the first problem is an error.
      name: of what is written, otherwise `split`.
      progress: whether to draw a bar.

    Returns:
      The summary, see `tf_pixpro.transfer.records.write_records`.

    Raises:
      ValueError: if arguments of another format are given, or as the readers say.
    """
    problems = records.Problems(strict)
    wanted = {"images", "annotations"} if format == "coco" else {"root"}
    given = {key for key, value in {"root": root, "images": images, "annotations": annotations}.items() if value}
    if given != wanted or (names and format != "voc"):
        raise ValueError(
            f"--format={format} takes {' and '.join(f'--{key}' for key in sorted(wanted))}"
            f"{', --names if need be' if format == 'voc' else ''}. Received {' '.join(f'--{key}' for key in sorted(given)) or 'none of them'}"
            f"{' --names' if names else ''}."
        )
    if format == "coco":
        pictures, categories = records.coco(images, annotations, problems)
    elif format == "voc":
        pictures = []
        for folder in [root] if isinstance(root, str) else root:
            more, categories = records.voc(
                folder, split, problems, names or records.VOC, first=pictures[-1].number + 1 if pictures else 1
            )
            pictures += more
    else:
        pictures, categories = {"cityscapes": records.cityscapes, "camvid": records.camvid}[format](
            root, split, problems
        )
    if share < 1:
        pictures = records.fraction(pictures, share)
    return records.write_records(pictures, categories, output, name or split, problems, shards, progress)


def _run():
    flags.DEFINE_enum("format", None, ["coco", "voc", "cityscapes", "camvid"], "Whose layout.", required=True)
    flags.DEFINE_string("split", None, "List or folder of the data set, such as train.", required=True)
    flags.DEFINE_string("output", None, "Folder of the TFRecords.", required=True)
    flags.DEFINE_list("root", None, "Folder of the data set; several, with commas, for VOC.")
    flags.DEFINE_string("images", None, "COCO: folder of the images.")
    flags.DEFINE_string("annotations", None, "COCO: instances_*.json.")
    flags.DEFINE_list("names", None, "VOC: the classes, if not Pascal's.")
    flags.DEFINE_float("share", 1.0, "Share of the pictures to take, always the same ones.")
    flags.DEFINE_integer("shards", 8, "Files to write.", lower_bound=1)
    flags.DEFINE_bool("strict", False, "End at the first problem.")
    flags.DEFINE_string("name", None, "Name of what is written; the split's otherwise.")
    names = ("format", "split", "output", "root", "images", "annotations", "names", "share", "shards", "strict", "name")

    def start(_):
        given = {key: getattr(flags.FLAGS, key) for key in names}
        if given["root"] and given["format"] != "voc":
            (given["root"],) = given["root"]
        summary = prepare(**given)
        for line in summary["lines"][:20]:
            print(line)
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(summary["problems"].items())) or "no problems"
        print(f"{summary['pictures']} images and {summary['things']} objects into {given['output']}: {told}")

    sessions.run(start)


if __name__ == "__main__":
    _run()
