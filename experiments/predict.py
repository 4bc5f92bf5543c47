"""Runs an exported detector or segmenter on a folder of images: pictures with boxes, masks, labels and scores, and a COCO result file.

python -m experiments.predict --saved_model=workdir/bccd/saved_model --images=BCCD/JPEGImages --output=predictions
"""

from __future__ import annotations

import collections
import json
import os

import numpy as np
import tensorflow as tf
from absl import flags, logging
from official.vision.utils.object_detection.visualization_utils import STANDARD_COLORS
from PIL import Image, ImageColor, ImageDraw
from pycocotools import mask as run_lengths
from tqdm import tqdm

from experiments.launch import session as sessions
from tf_evonorm.atomic import whole
from tf_pixpro.transfer import paste_back

KINDS = (".jpg", ".jpeg", ".png")


def predict(saved_model, images, output, threshold=0.5, annotations=None, limit=None, progress=True) -> list:
    """Predicts every image of a folder.

    Args:
      saved_model: folder of `tf_pixpro.transfer.serving.export_transfer`.
      images: folder of JPEG and PNG files, or one of them. What cannot be decoded is told and left out.
      output: folder that gets a picture NAME.png of each (of those that differ in their ending alone, NAME.jpg.png), and predictions.json;
        NAME_classes.png, the class numbers, of a segmenter too.
      threshold: least score of what is drawn; the result file holds everything.
      annotations: a COCO file whose image ids are taken; images not in it are left out. Otherwise they are numbered from 1.
      limit: at most so many images.
      progress: whether to draw a bar.

    Returns:
      What predictions.json holds, COCO's result format: {'image_id', 'category_id', 'bbox' [x, y, width, height] in pixels, 'score',
      'segmentation' (run lengths, with masks)}; of a segmenter one entry for each class of an image.

    Raises:
      FileNotFoundError: if there is no SavedModel or no image.
      ValueError: if no image can be decoded.
    """
    for needed in ("saved_model.pb", "labels.json"):
        if not tf.io.gfile.exists(os.path.join(saved_model, needed)):
            raise FileNotFoundError(
                f"--saved_model must be an exported model. Received {saved_model!r}, without {needed}."
            )
    with tf.io.gfile.GFile(os.path.join(saved_model, "labels.json")) as file:
        described = json.load(file)
    images, numbers = _numbers(images, annotations)
    names = sorted(numbers)[:limit]
    stems = collections.Counter(os.path.splitext(name)[0] for name in names)
    tf.io.gfile.makedirs(output)
    serve = tf.saved_model.load(saved_model).signatures["image_bytes"]
    results, left_out = [], []
    for name in tqdm(names, unit="image", disable=not progress, dynamic_ncols=True):
        with tf.io.gfile.GFile(os.path.join(images, name), "rb") as file:
            encoded = file.read()
        try:
            image = np.asarray(tf.io.decode_image(encoded, channels=3, expand_animations=False))
        except tf.errors.InvalidArgumentError:
            left_out.append(name)
            continue
        outputs = {key: value.numpy()[0] for key, value in serve(tf.constant([encoded])).items()}
        stem = os.path.splitext(name)[0]
        stem = os.path.join(output, stem if stems[stem] == 1 else name)
        if described["kind"] == "segmenter":
            classes = paste_back.classes(outputs["logits"], outputs["image_info"])
            found = _segments(classes)
            Image.fromarray(classes.astype(np.uint8)).save(f"{stem}_classes.png")
        else:
            found = _detections(outputs, image.shape[:2])
        picture(image, [one for one in found if one["score"] >= threshold], described["labels"]).save(f"{stem}.png")
        results += [{"image_id": numbers[name], **one} for one in found]
    if left_out:
        told = f"{len(left_out)} of {len(names)} images could not be decoded: {', '.join(left_out[:5])}"
        if len(left_out) == len(names):
            raise ValueError(f"--images must hold images that can be decoded. Received {images!r}, where {told}.")
        logging.warning("%s", told)
    with whole(os.path.join(output, "predictions.json")) as partial, tf.io.gfile.GFile(partial, "w") as file:
        json.dump(results, file)
    return results


def picture(image, found, labels) -> Image.Image:
    """Draws predictions over an image.

    Args:
      image: [H, W, 3] uint8.
      found: entries of the result format, the surest first.
      labels: class number as text -> name.
    """
    canvas = np.array(image, np.float32)
    colours = {one["category_id"]: _colour(one["category_id"]) for one in found}
    for one in found:
        if "segmentation" in one:
            inside = run_lengths.decode(one["segmentation"]).astype(bool)
            canvas[inside] = 0.5 * canvas[inside] + 0.5 * np.array(colours[one["category_id"]])
    drawn = Image.fromarray(np.rint(canvas).astype(np.uint8))
    draw = ImageDraw.Draw(drawn)
    for one in reversed(found):
        x, y, width, height = one.get("bbox", (0, 0, 0, 0))
        if not width:
            continue
        colour = colours[one["category_id"]]
        text = f"{labels.get(str(one['category_id']), one['category_id'])} {one['score']:.2f}"
        draw.rectangle([x, y, x + width, y + height], outline=colour, width=2)
        place = draw.textbbox((x + 2, max(y - 12, 0)), text)
        draw.rectangle(place, fill=colour)
        draw.text(place[:2], text, fill="black")
    return drawn


def _numbers(images, annotations):
    """The folder, and file name -> image id of what is in it."""
    folder, one = (images, None) if tf.io.gfile.isdir(images) else os.path.split(images)
    if one and not tf.io.gfile.exists(images):
        raise FileNotFoundError(f"--images must be a folder, or an image. Received {images!r}, where there is nothing.")
    if annotations:
        with tf.io.gfile.GFile(annotations) as file:
            listed = {entry["file_name"]: entry["id"] for entry in json.load(file)["images"]}
        found = {name: number for name, number in listed.items() if tf.io.gfile.exists(os.path.join(folder, name))}
    else:
        names = sorted(name for name in tf.io.gfile.listdir(folder or ".") if name.lower().endswith(KINDS))
        found = {name: number for number, name in enumerate(names, 1)}
    found = {name: number for name, number in found.items() if one in (None, name)}
    if not found:
        raise FileNotFoundError(
            f"--images must hold JPEG or PNG files{' of --annotations' if annotations else ''}. Received {images!r}."
        )
    return folder, found


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
    return ImageColor.getrgb(STANDARD_COLORS[number % len(STANDARD_COLORS)])


def _run():
    flags.DEFINE_string("saved_model", None, "Folder of the exported model.", required=True)
    flags.DEFINE_string("images", None, "Folder of images.", required=True)
    flags.DEFINE_string("output", None, "Folder of pictures and predictions.json.", required=True)
    flags.DEFINE_float("threshold", 0.5, "Least score of what is drawn.")
    flags.DEFINE_string("annotations", None, "COCO file whose image ids are taken.")
    flags.DEFINE_integer("limit", None, "At most so many images.")
    names = ("saved_model", "images", "output", "threshold", "annotations", "limit")

    def start(_):
        given = {name: getattr(flags.FLAGS, name) for name in names}
        results = predict(**given)
        print(f"{len(results)} predictions and the pictures: {os.path.join(given['output'], 'predictions.json')}")

    sessions.run(start)


if __name__ == "__main__":
    _run()
