"""Runs an exported detector or segmenter on images: drawings of what was found, and a COCO result file.

python -m experiments.predict --saved_model=workdir/bccd/saved_model --images=BCCD/JPEGImages --output=predictions
"""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from absl import flags, logging
from official.vision.utils.object_detection import visualization_utils
from PIL import Image
from pycocotools import mask as run_lengths
from tqdm import tqdm

from experiments.launch import session as sessions
from tf_evonorm.atomic import atomic_path
from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer import paste_back
from tf_pixpro.transfer.records import ImageFolder
from tf_pixpro.transfer.records.image_files import ENDINGS, read, read_text, stored_image
from tf_pixpro.views.decode import decode_array


def predict(
    saved_model: str,
    images: str,
    output: str,
    threshold: float = 0.5,
    annotations: Optional[str] = None,
    limit: Optional[int] = None,
    exif: Optional[str] = None,
    progress: bool = True,
) -> list:
    """Predicts every image of a folder.

    Args:
      saved_model: folder of `tf_pixpro.transfer.serving.export_transfer`.
      images: folder of image files, or one of them. What cannot be decoded is reported and left out.
      output: folder that gets a drawing NAME.png of each (of those that differ in their ending alone, NAME.jpg.png), in
        the same folder below it as the image has below `images`, and predictions.json; NAME_classes.png, the class
        numbers, of a segmenter too. It must not be the folder of the images: nothing there is written over.
      threshold: least score of what is drawn; the result file holds everything.
      annotations: a COCO file whose image ids are taken; images not in it are left out. Otherwise they are numbered
        from 1.
      limit: at most so many images.
      exif: 'apply' predicts and draws on images as displayed, by their EXIF orientation, 'ignore' on the stored pixels;
        None does what the records were made with that the model learned from.
      progress: whether to draw a bar.

    Returns:
      What predictions.json holds, COCO's result format: {'image_id', 'category_id', 'bbox' [x, y, width, height] in
      pixels, 'score', 'segmentation' (run lengths, with masks)}; of a segmenter one entry for each class of an image.

    Raises:
      Mistake: if there is no SavedModel or no image, no image can be decoded, or an image would be written over.
    """
    if exif not in (None, "apply", "ignore"):
        raise Mistake(f"exif must be apply or ignore. Received {exif!r}.")
    described = _described(saved_model)
    upright = described.get("exif", True) if exif is None else exif == "apply"
    paths, numbers = _numbers(images, annotations)
    names = sorted(numbers)[:limit]
    targets = _targets(names, paths, output)
    serve = tf.saved_model.load(saved_model).signatures["image_bytes"]
    results, left_out = [], []
    for name in tqdm(names, unit="image", disable=not progress, dynamic_ncols=True):
        try:
            encoded, _, size = stored_image(read(paths[name]), upright)
        except Mistake as error:
            left_out.append(f"{name} ({error})")
            continue
        outputs = {key: value.numpy()[0] for key, value in serve(tf.constant([encoded])).items()}
        found = _found(outputs, described["kind"], size, targets[name])
        drawn = [one for one in found if one["score"] >= threshold]
        picture(decode_array(encoded), drawn, described["labels"]).save(f"{targets[name]}.png")
        results += [{"image_id": numbers[name], **one} for one in found]
    if left_out:
        reported = f"{len(left_out)} of {len(names)} images could not be decoded: {', '.join(left_out[:5])}"
        if len(left_out) == len(names):
            raise Mistake(f"--images must hold images that can be decoded. Received {images!r}, where {reported}.")
        logging.warning("%s", reported)
    with atomic_path(os.path.join(output, "predictions.json")) as partial, tf.io.gfile.GFile(partial, "w") as file:
        json.dump(results, file)
    return results


def picture(image: np.ndarray, found: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> Image.Image:
    """Draws predictions over an image.

    Args:
      image: [H, W, 3] uint8.
      found: entries of the result format, the surest first.
      labels: class number as text -> name.
    """
    drawn = np.array(image, np.uint8)
    for one in found:
        if "segmentation" in one:
            inside = run_lengths.decode(one["segmentation"])
            visualization_utils.draw_mask_on_image_array(drawn, inside, _colour(one["category_id"]), 0.5)
    canvas = Image.fromarray(drawn)
    for one in reversed(found):
        x, y, width, height = one.get("bbox", (0, 0, 0, 0))
        if width:
            text = f"{labels.get(str(one['category_id']), one['category_id'])} {one['score']:.2f}"
            visualization_utils.draw_bounding_box_on_image(
                canvas, y, x, y + height, x + width, _colour(one["category_id"]), 2, [text], False
            )
    return canvas


def _described(saved_model):
    """Kind and labels of an exported model."""
    for needed in ("saved_model.pb", "labels.json"):
        if not tf.io.gfile.exists(os.path.join(saved_model, needed)):
            raise Mistake(f"--saved_model must be an exported model. Received {saved_model!r}, without {needed}.")
    return json.loads(read(os.path.join(saved_model, "labels.json")))


def _numbers(images, annotations):
    """(name below the folder -> path, name -> image id) of what is to be predicted."""
    folder, one = (images, None) if tf.io.gfile.isdir(images) else os.path.split(images)
    if one and not tf.io.gfile.exists(images):
        raise Mistake(f"--images must be a folder, or an image. Received {images!r}, where there is nothing.")
    files = ImageFolder(folder)
    if annotations:
        paths, numbers = _annotated(files, annotations)
    else:
        listed = sorted(name for names in files.listing().values() for name in names)
        listed = [name for name in listed if name.lower().endswith(ENDINGS) and not name.startswith("._")]
        if one and one not in listed:
            listed.append(one)
        paths = {name: os.path.join(folder, name) for name in listed}
        numbers = {name: number for number, name in enumerate(listed, 1)}
    numbers = {name: number for name, number in numbers.items() if one in (None, name)}
    if not numbers:
        raise Mistake(
            f"--images must hold JPEG or PNG files{' of --annotations' if annotations else ''}. Received {images!r}."
        )
    return paths, numbers


def _annotated(files, annotations):
    """The same of the images that a COCO file lists and that are there."""
    try:
        listed = [(str(entry["file_name"]), entry["id"]) for entry in json.loads(read_text(annotations))["images"]]
    except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        raise Mistake(
            f"--annotations must be a COCO file with images. Received {annotations!r}: {' '.join(repr(error).split())}"
        ) from error
    paths, numbers, missing = {}, {}, []
    for file_name, number in listed:
        path = files.find(file_name)
        if path is None:
            missing.append(file_name)
            continue
        name = os.path.relpath(path, files.path or ".") if "://" not in path else path[len(files.path) :].lstrip("/")
        if name in numbers and numbers[name] != number:
            raise Mistake(
                f"--annotations must list an image once. Received ids {numbers[name]} and {number} for {file_name!r}. "
                "Are the folders "
                "missing in its file names? Prepare the records again."
            )
        paths[name], numbers[name] = path, number
    if missing:
        logging.warning(
            "%d of %d images of --annotations are not there: %s", len(missing), len(listed), ", ".join(missing[:5])
        )
    return paths, numbers


def _targets(names: Sequence[str], paths: Mapping[str, str], output: str) -> dict:
    """Name -> path of its drawing without the ending; its folder is made.

    Raises:
      Mistake: if output is a folder of the images, or an image in one would be written over.
    """
    folders = {os.path.dirname(os.path.abspath(paths[name])) for name in names}
    if os.path.realpath(output) in map(os.path.realpath, folders):
        raise Mistake(f"--output must be another folder than that of the images. Received {output!r} for both.")
    stems = collections.Counter(os.path.splitext(name)[0] for name in names)
    targets = {}
    for name in names:
        stem, below = os.path.splitext(name)[0], name
        if stems[stem] == 1:
            below = stem
        if below.startswith("..") or os.path.isabs(below):
            below = os.path.basename(below)
        targets[name] = os.path.join(output, below)
    real = {os.path.realpath(folder) for folder in folders}
    for target in targets.values():
        for path in (f"{target}.png", f"{target}_classes.png"):
            if os.path.exists(path) and os.path.dirname(os.path.realpath(path)) in real:
                raise Mistake(f"--output must not hold the images. Received {output!r}: {path} would be written over.")
    for folder in {os.path.dirname(target) for target in targets.values()} | {output}:
        tf.io.gfile.makedirs(folder)
    return targets


def _found(outputs, kind, size, target):
    """Entries of the result format; a segmenter's class numbers become a file, too."""
    if kind != "segmenter":
        return _detections(outputs, size)
    classes = paste_back.classes(outputs["logits"], outputs["image_info"])
    Image.fromarray(classes.astype(np.uint8)).save(f"{target}_classes.png")
    return _segments(classes)


def _detections(outputs, size):
    entries = []
    boxes = paste_back.boxes(outputs["detection_boxes"], outputs["image_info"])
    for index in range(int(outputs["num_detections"])):
        x, y, width, height = (round(float(value), 2) for value in boxes[index])
        if width <= 0 or height <= 0:
            continue
        entry = {
            "category_id": int(outputs["detection_classes"][index]),
            "bbox": [x, y, width, height],
            "score": round(float(outputs["detection_scores"][index]), 5),
        }
        if "detection_masks" in outputs:
            entry["segmentation"] = _outline(paste_back.mask(outputs["detection_masks"][index], boxes[index], size))
        entries.append(entry)
    return entries


def _segments(classes):
    return [
        {"category_id": int(number), "score": 1.0, "segmentation": _outline(classes == number)}
        for number in np.unique(classes)
    ]


def _outline(mask):
    outline = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in outline["size"]], "counts": outline["counts"].decode()}


def _colour(number):
    colours = visualization_utils.STANDARD_COLORS
    return colours[number % len(colours)]


def _run():
    flags.DEFINE_string("saved_model", None, "Folder of the exported model.", required=True)
    flags.DEFINE_string("images", None, "Folder of images.", required=True)
    flags.DEFINE_string("output", None, "Folder of drawings and predictions.json.", required=True)
    flags.DEFINE_enum("exif", None, ["apply", "ignore"], "As viewers show them, or stored pixels; as in training.")
    flags.DEFINE_float("threshold", 0.5, "Least score of what is drawn.")
    flags.DEFINE_string("annotations", None, "COCO file whose image ids are taken.")
    flags.DEFINE_integer("limit", None, "At most so many images.")
    names = ("saved_model", "images", "output", "threshold", "annotations", "limit", "exif")

    def start(_):
        given = {name: getattr(flags.FLAGS, name) for name in names}
        results = predict(**given)
        print(f"{len(results)} predictions and the drawings: {os.path.join(given['output'], 'predictions.json')}")

    sessions.run(start)


if __name__ == "__main__":
    _run()
