"""Bytes from outside, spoiled in many ways: every reader gives what it read or one clear error, never anything else."""

import copy
import io
import json
import pathlib
import zipfile

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies
from PIL import Image

from tf_pixpro import data
from tf_pixpro.checkpoints import pth
from tf_pixpro.transfer.records import Problems, coco, voc, write_records

pytestmark = pytest.mark.slow
many = hypothesis.settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
ODD = [
    None,
    True,
    -1,
    0,
    1e308,
    float("nan"),
    float("inf"),
    10**40,
    "",
    "car",
    "\x00",
    [],
    [[]],
    {},
    {"size": [6, 8], "counts": "x"},
]


@strategies.composite
def spoiled_bytes(draw, whole: bytes):
    """Some bytes changed, left out, doubled or put in, or the end cut off."""
    result = bytearray(whole)
    for _ in range(draw(strategies.integers(1, 4))):
        place = draw(strategies.integers(0, len(result)))
        gone = draw(strategies.sampled_from([0, 1, 1, 4, len(result)]))
        result[place : place + gone] = draw(strategies.binary(max_size=4))
    return bytes(result)


@strategies.composite
def spoiled_tree(draw, whole):
    """JSON with some value anywhere in it replaced or left out."""
    tree = copy.deepcopy(whole)
    for _ in range(draw(strategies.integers(1, 3))):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(strategies.sampled_from(keys))
            if isinstance(node[key], (dict, list)) and draw(strategies.integers(0, 4)):
                node = node[key]
                continue
            if draw(strategies.booleans()):
                node[key] = draw(strategies.sampled_from(ODD))
            else:
                del node[key]
            break
    return tree


def encoded(kind="JPEG", size=(48, 64)):
    stored = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)).save(stored, kind)
    return stored.getvalue()


@pytest.mark.parametrize("legacy", [True, False])
def test_checkpoints(tmp_path, legacy):
    path = tmp_path / "some.pth"
    pth.write(path, {"state_dict": {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}, "epoch": 3}, legacy)
    whole, read = path.read_bytes(), []

    @many
    @hypothesis.given(spoiled_bytes(whole))
    def spoil(spoiled):
        path.write_bytes(spoiled)
        try:
            read.append(pth.read(path))
        except ValueError as error:
            assert str(path) in str(error) and len(str(error)) < 1000

    spoil()
    assert len(read) < 400


def test_coco_annotations(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("PNG", (6, 8)))
    box = {"image_id": 1, "category_id": 3, "bbox": [1, 1, 3, 3], "area": 9, "iscrowd": 0}
    lengths = {"size": [6, 8], "counts": [10, 5, 33]}
    objects = [
        {"id": 1, **box, "segmentation": [[1, 1, 4, 1, 4, 4]]},
        {"id": 2, **box, "iscrowd": 1, "segmentation": lengths},
    ]
    whole = {
        "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}],
        "annotations": objects,
        "categories": [{"id": 3, "name": "car"}],
    }
    path, reported = tmp_path / "instances.json", []

    @many
    @hypothesis.given(spoiled_tree(whole))
    def spoil(tree):
        path.write_text(json.dumps(tree))
        problems = Problems()
        try:
            images, categories = coco(str(tmp_path), str(path), problems)
            write_records(images, categories, str(tmp_path / "out"), "some", problems, 1, progress=False)
        except ValueError as error:
            assert "Received" in str(error) or "Reading" in str(error)
            return
        reported.append(bool(problems.counts))

    spoil()
    assert any(reported)


def test_voc_annotations(tmp_path):
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    whole = b"<annotation><size><width>8</width><height>6</height></size><object><name>cat</name><bndbox><xmin>1</xmin>"
    whole += b"<ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"

    @many
    @hypothesis.given(spoiled_bytes(whole))
    def spoil(spoiled):
        (tmp_path / "Annotations" / "a.xml").write_bytes(spoiled)
        problems = Problems()
        images, _ = voc(str(tmp_path), "train", problems)
        objects = [one for image in images for one in image.objects]
        assert objects or problems.counts or spoiled.count(b"<object>") == 0 or spoiled.count(b"</object>") == 0
        assert all(np.isfinite(one.box).all() for one in objects)

    spoil()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images_of_a_source(tmp_path, kind):
    """Spoiled images among sound ones are left out or read; training has finite views in any case."""

    @hypothesis.settings(many, max_examples=5)
    @hypothesis.given(strategies.lists(spoiled_bytes(encoded(kind)), min_size=20, max_size=20))
    def spoil(spoiled):
        path = tmp_path / "photos.zip"
        with zipfile.ZipFile(path, "w") as file:
            for index, content in enumerate([*spoiled, *[encoded()] * 8]):
                file.writestr(f"{index}.jpg", content)
        source = data.source(str(path))
        views = data.pretrain_dataset(source, size=(32, 32), global_batch=4, seed=0, max_bad_share=1.0)
        for batch in views.take(8):
            assert np.isfinite(batch["view1"]).all()

    spoil()


def test_images_at_serving(tmp_path):
    from tf_pixpro.export import export_encoder

    encoder = tf.keras.Sequential([tf.keras.layers.Conv2D(4, 3, strides=8, input_shape=(32, 32, 3))])
    model = tf.keras.Model(encoder.input, {"3": encoder.output})
    path = export_encoder(model, str(tmp_path / "model"), image_size=(32, 32))
    served = tf.saved_model.load(path).signatures["serving_default"]

    @many
    @hypothesis.given(spoiled_bytes(encoded()))
    def spoil(spoiled):
        try:
            answer = served(image_bytes=tf.constant([spoiled]))
        except tf.errors.InvalidArgumentError:
            return
        assert np.isfinite(answer["pooled"]).all()

    spoil()
    assert pathlib.Path(path).exists()
