"""Predicting with exported models: the result file is what the model says, on the image as it was, and the pictures show it."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from experiments import predict


def exported(folder, outputs, kind="detector", labels=None):
    """A SavedModel with the signature of an exported one that says the same of every image."""
    module = tf.Module()
    module.serve = tf.function(
        lambda image_bytes: {key: tf.constant(value)[None] for key, value in outputs.items()},
        input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")],
    )
    tf.saved_model.save(module, str(folder), signatures={"image_bytes": module.serve})
    (folder / "labels.json").write_text(json.dumps({"kind": kind, "labels": labels or {}}))
    return str(folder)


def images_in(folder, names=("b.png", "a.png"), size=(60, 80)):
    folder.mkdir()
    for name in names:
        Image.new("RGB", size[::-1], (200, 200, 200)).save(folder / name)
    return str(folder)


# An image of 60 x 80 resized by 0.6 into a frame of 48 x 48.
INFO = np.array([[60, 80], [48, 48], [0.6, 0.6], [0, 0]], np.float32)
DETECTIONS = {
    "detection_boxes": np.array([[6, 12, 18, 36], [0, 0, 12, 12], [0, 0, 0, 0]], np.float32),
    "detection_scores": np.array([0.9, 0.3, 0.0], np.float32),
    "detection_classes": np.array([2, 1, 0], np.int32),
    "num_detections": np.array(3, np.int32),
    "image_info": INFO,
}


def test_detections_on_the_image_as_it_was(tmp_path):
    masks = np.ones((3, 28, 28), np.float32)
    saved = exported(tmp_path / "saved", {**DETECTIONS, "detection_masks": masks}, labels={"2": "cell"})
    images = images_in(tmp_path / "images")
    results = predict.predict(saved, images, str(tmp_path / "out"), progress=False)
    assert [entry["image_id"] for entry in results] == [1, 1, 2, 2]  # a.png, b.png
    assert results[0]["bbox"] == pytest.approx([20, 10, 40, 20], abs=0.01) and results[0]["category_id"] == 2
    inside = run_lengths.decode(results[0]["segmentation"])
    assert inside.shape == (60, 80) and inside[12:28, 22:58].all() and inside.sum() < 42 * 22
    with open(tmp_path / "out" / "predictions.json") as file:
        assert json.load(file) == results
    drawn = np.asarray(Image.open(tmp_path / "out" / "a.png"), int)
    assert (drawn[20, 40] != 200).any() and (drawn[50, 70] == 200).all()  # inside and outside the sure one
    assert (drawn[5, 5] == 200).all()  # the unsure one is not drawn


def test_ids_of_an_annotation_file(tmp_path):
    saved, images = exported(tmp_path / "saved", DETECTIONS), images_in(tmp_path / "images")
    annotations = {
        "images": [{"id": 77, "file_name": "b.png", "height": 60, "width": 80}],
        "annotations": [
            {"id": 1, "image_id": 77, "category_id": 2, "bbox": [20, 10, 40, 20], "area": 800, "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}],
    }
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotations))
    results = predict.predict(saved, images, str(tmp_path / "out"), annotations=str(path), progress=False)
    assert {entry["image_id"] for entry in results} == {77}
    assert len(COCO(str(path)).loadRes(str(tmp_path / "out" / "predictions.json")).anns) == 2


def test_classes_on_the_image_as_it_was(tmp_path):
    logits = np.zeros((48, 48, 3), np.float32)
    logits[:18, :, 2] = 1
    saved = exported(tmp_path / "saved", {"logits": logits, "image_info": INFO}, "segmenter")
    results = predict.predict(saved, images_in(tmp_path / "images", ["a.png"]), str(tmp_path / "out"), progress=False)
    assert [entry["category_id"] for entry in results] == [0, 2]
    classes = np.asarray(Image.open(tmp_path / "out" / "a_classes.png"))
    assert (classes[:29] == 2).all() and (classes[31:] == 0).all()
    np.testing.assert_array_equal(run_lengths.decode(results[1]["segmentation"]), classes == 2)


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"without saved_model\.pb"):
        predict.predict(str(tmp_path), str(tmp_path), str(tmp_path / "out"))
    saved = exported(tmp_path / "saved", DETECTIONS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="must hold JPEG or PNG"):
        predict.predict(saved, str(tmp_path / "empty"), str(tmp_path / "out"))


def test_bad_images_are_left_out_and_none_is_written_over(tmp_path, caplog):
    saved = exported(tmp_path / "saved", DETECTIONS)
    images = images_in(tmp_path / "images", ["a.png", "a.jpg", "b.png"])
    (tmp_path / "images" / "torn.jpg").write_bytes((tmp_path / "images" / "a.jpg").read_bytes()[:-300])
    results = predict.predict(saved, images, str(tmp_path / "out"), progress=False)
    assert [entry["image_id"] for entry in results] == [1, 1, 2, 2, 3, 3]
    assert "1 of 4 images could not be decoded: torn.jpg" in caplog.text
    left = {"a.jpg.png", "a.png.png", "b.png", "predictions.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == left
    with pytest.raises(ValueError, match="1 of 1 images could not be decoded"):
        predict.predict(saved, f"{images}/torn.jpg", str(tmp_path / "alone"), progress=False)
    assert not (tmp_path / "alone" / "predictions.json").exists()
    assert len(predict.predict(saved, f"{images}/a.png", str(tmp_path / "alone"), progress=False)) == 2
    with pytest.raises(FileNotFoundError, match=r"a folder, or an image\. Received .*nowhere"):
        predict.predict(saved, str(tmp_path / "nowhere"), str(tmp_path / "out"))
