"""Predicting with exported models: the result file is what the model says, and the drawings show it."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from experiments import predict
from tf_evonorm.mistakes import Mistake


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
    with pytest.raises(Mistake, match=r"without saved_model\.pb"):
        predict.predict(str(tmp_path), str(tmp_path), str(tmp_path / "out"))
    saved = exported(tmp_path / "saved", DETECTIONS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Mistake, match="must hold JPEG or PNG"):
        predict.predict(saved, str(tmp_path / "empty"), str(tmp_path / "out"))


def test_bad_images_are_left_out_and_none_is_written_over(tmp_path, caplog):
    saved = exported(tmp_path / "saved", DETECTIONS)
    images = images_in(tmp_path / "images", ["a.png", "a.jpg", "b.png"])
    (tmp_path / "images" / "torn.jpg").write_bytes((tmp_path / "images" / "a.jpg").read_bytes()[:-300])
    results = predict.predict(saved, images, str(tmp_path / "out"), progress=False)
    assert [entry["image_id"] for entry in results] == [1, 1, 2, 2, 3, 3]
    assert "1 of 4 images could not be decoded: torn.jpg (" in caplog.text
    left = {"a.jpg.png", "a.png.png", "b.png", "predictions.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == left
    with pytest.raises(Mistake, match="1 of 1 images could not be decoded"):
        predict.predict(saved, f"{images}/torn.jpg", str(tmp_path / "alone"), progress=False)
    assert not (tmp_path / "alone" / "predictions.json").exists()
    assert len(predict.predict(saved, f"{images}/a.png", str(tmp_path / "alone"), progress=False)) == 2
    with pytest.raises(Mistake, match=r"a folder, or an image\. Received .*nowhere"):
        predict.predict(saved, str(tmp_path / "nowhere"), str(tmp_path / "out"))


@pytest.mark.parametrize("below", ["", "a.png"])
def test_originals_are_never_written_over(tmp_path, below):
    saved, images = exported(tmp_path / "saved", DETECTIONS), images_in(tmp_path / "images", ["a.png", "b.jpg"])
    before = {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()}
    (tmp_path / "link").symlink_to(images)
    for output in (images, f"{images}/", f"{images}/../images", str(tmp_path / "link")):
        with pytest.raises(Mistake, match="another folder than that of the images"):
            predict.predict(saved, f"{images}/{below}".rstrip("/"), output, progress=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()} == before
    predict.predict(saved, images, f"{images}/predicted", progress=False)
    assert (tmp_path / "images" / "predicted" / "a.png").exists()
    for name, content in before.items():
        assert (tmp_path / "images" / name).read_bytes() == content


def test_an_image_below_is_not_written_over_from_above(tmp_path):
    """The drawing of one image would be another image: annotations that name folders, output above them."""
    saved = exported(tmp_path / "saved", DETECTIONS)
    images_in(tmp_path / "images", ["a.png"])
    images_in(tmp_path / "images" / "images", ["a.png", "b.png"])
    listed = [{"id": 1, "file_name": "images/a.png"}, {"id": 2, "file_name": "a.png"}]
    (tmp_path / "some.json").write_text(json.dumps({"images": listed}))
    before = (tmp_path / "images" / "a.png").read_bytes()
    with pytest.raises(Mistake, match="written over"):
        predict.predict(
            saved, str(tmp_path / "images"), str(tmp_path), annotations=str(tmp_path / "some.json"), progress=False
        )
    assert (tmp_path / "images" / "a.png").read_bytes() == before


def test_folders_below_the_images(tmp_path):
    saved = exported(tmp_path / "saved", DETECTIONS)
    images_in(tmp_path / "images", ["a.png"])
    images_in(tmp_path / "images" / "sub", ["a.png", "b.png"])
    listed = [{"id": i, "file_name": name} for i, name in enumerate(["sub/a.png", "a.png", "sub\\b.png", "no.png"], 5)]
    path = tmp_path / "some.json"
    path.write_text(json.dumps({"images": listed}), encoding="utf-8-sig")
    results = predict.predict(
        saved, str(tmp_path / "images"), str(tmp_path / "out"), annotations=str(path), progress=False
    )
    assert {entry["image_id"] for entry in results} == {5, 6, 7}
    drawn = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.png")}
    assert drawn == {"a.png", "sub/a.png", "sub/b.png"}
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}]}))
    with pytest.raises(Mistake, match="list an image once"):
        predict.predict(saved, str(tmp_path / "images"), str(tmp_path / "out"), annotations=str(path), progress=False)


def reading(folder):
    """A SavedModel that says the height and the width of what it is given, decoded as TensorFlow does."""
    module = tf.Module()

    def serve(image_bytes):
        size = tf.cast(tf.shape(tf.io.decode_image(image_bytes[0], expand_animations=False))[:2], tf.float32)
        box = tf.concat([[0.0, 0.0], size], 0)[None, None]
        info = tf.stack([size, size, tf.ones(2), tf.zeros(2)])[None]
        return {
            "detection_boxes": box,
            "detection_scores": tf.ones([1, 1]),
            "detection_classes": tf.ones([1, 1], tf.int32),
            "num_detections": tf.ones([1], tf.int32),
            "image_info": info,
        }

    module.serve = tf.function(serve, input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    tf.saved_model.save(module, str(folder), signatures={"image_bytes": module.serve})
    (folder / "labels.json").write_text(json.dumps({"kind": "detector", "labels": {}}))
    return str(folder)


@pytest.mark.parametrize("recorded", [None, True, False])
@pytest.mark.parametrize("exif", [None, "apply", "ignore"])
def test_orientation_of_photos(tmp_path, recorded, exif):
    """A model that does not turn images itself: drawn as displayed or as stored, by default as it learned them."""
    upright = recorded is not False if exif is None else exif == "apply"
    size = (80, 60) if upright else (60, 80)
    (tmp_path / "images").mkdir()
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.new("RGB", (80, 60), (200, 200, 200)).save(tmp_path / "images" / "a.jpg", exif=tag)
    saved = reading(tmp_path / "saved")
    if recorded is not None:
        (tmp_path / "saved" / "labels.json").write_text(
            json.dumps({"kind": "detector", "labels": {}, "exif": recorded})
        )
    (entry,) = predict.predict(saved, str(tmp_path / "images"), str(tmp_path / "out"), exif=exif, progress=False)
    assert entry["bbox"] == [0, 0, size[1], size[0]]
    drawn = Image.open(tmp_path / "out" / "a.png")
    assert (drawn.height, drawn.width) == size and drawn.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_formats_that_the_model_cannot_decode(tmp_path, kind):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (80, 60), (200, 200, 200)).save(tmp_path / "images" / f"a.{kind.lower()}", kind)
    (entry,) = predict.predict(
        reading(tmp_path / "saved"), str(tmp_path / "images"), str(tmp_path / "out"), progress=False
    )
    assert entry["bbox"] == [0, 0, 80, 60]
