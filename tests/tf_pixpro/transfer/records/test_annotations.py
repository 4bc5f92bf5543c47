"""Annotations to TFRecords: Model Garden reads back what the owner wrote, and faults are reported with their line."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from annotated import examples_of, picture_file
from official.vision.dataloaders import segmentation_input, tf_example_decoder
from PIL import Image
from pycocotools.coco import COCO

from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer import records


def coco_file(folder, images, annotations):
    path = folder / "instances.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "car"}]})
    )
    return path


def voc_folder(root, objects, size=(6, 8), name="a"):
    picture_file(root / "JPEGImages" / f"{name}.jpg", size, "JPEG")
    lines = ["<annotation>", f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"]
    for label, box, difficult in objects:
        sides = "".join(f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box))
        lines.append(f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox>{sides}</bndbox></object>")
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "Annotations" / f"{name}.xml").write_text("\n".join([*lines, "</annotation>"]))
    (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    with open(root / "ImageSets" / "Main" / "train.txt", "a") as listing:
        listing.write(f"{name}\n")


def test_real_coco_comes_back_as_its_owners_tool_reads_it(shared_data, tmp_path):
    root = shared_data("coco_sub")
    problems = records.Problems()
    annotations = str(root / "annotations" / "instances_val.json")
    pictures, categories = records.coco(str(root / "images" / "val"), annotations, problems)
    summary = records.write_records(pictures, categories, str(tmp_path), "some", problems, shards=3, progress=False)
    # Numbers of the data set's own description.
    assert (summary["images"], summary["objects"], len(categories), summary["problems"]) == (27, 199, 80, {})
    owner = COCO(annotations)
    decoder = tf_example_decoder.TfExampleDecoder(include_mask=True)
    seen = set()
    for record in examples_of(tmp_path):
        decoded = decoder.decode(record)
        number = int(decoded["source_id"])
        seen.add(number)
        theirs = owner.loadAnns(owner.getAnnIds(number))
        size = np.array([decoded["height"], decoded["width"]] * 2)
        boxes = decoded["groundtruth_boxes"].numpy().reshape(-1, 4) * size
        wanted = np.array([a["bbox"] for a in theirs]).reshape(-1, 4)
        wanted = np.concatenate([wanted[:, 1::-1], wanted[:, 1::-1] + wanted[:, :1:-1]], axis=1)
        np.testing.assert_allclose(boxes, wanted, atol=0.01)
        assert decoded["groundtruth_classes"].numpy().tolist() == [a["category_id"] for a in theirs]
        assert decoded["groundtruth_is_crowd"].numpy().tolist() == [bool(a["iscrowd"]) for a in theirs]
        np.testing.assert_allclose(decoded["groundtruth_area"].numpy(), [a["area"] for a in theirs], rtol=1e-6)
        for mask, annotation in zip(decoded["groundtruth_instance_masks"].numpy(), theirs):
            np.testing.assert_array_equal(mask, owner.annToMask(annotation))
    assert seen == set(owner.getImgIds())  # the image without objects is there
    written = COCO(str(tmp_path / "some_annotations.json"))
    assert len(written.anns) == 199 and set(written.imgs) == seen


def test_voc_boxes_lose_their_offset_and_keep_difficult(tmp_path):
    voc_folder(tmp_path, [("cat", (1, 1, 8, 6), 0), ("dog", (3, 2, 4, 5), 1)])
    voc_folder(tmp_path, [], name="b")
    pictures, categories = records.voc(str(tmp_path), "train", records.Problems(strict=True))
    # Pixels 1 to 8 of 8 are the whole width; pixels 3 and 4 are the stretch from 2 to 4.
    assert [one.box for one in pictures[0].objects] == [(0, 0, 8, 6), (2, 1, 4, 5)]
    assert [one.difficult for one in pictures[0].objects] == [False, True]
    assert [categories[one.label - 1].name for one in pictures[0].objects] == ["cat", "dog"]
    assert pictures[1].objects == () and [p.number for p in pictures] == [1, 2]
    records.write_records(pictures, categories, str(tmp_path / "out"), "some", records.Problems(), 1, progress=False)
    first, second = (tf_example_decoder.TfExampleDecoder().decode(record) for record in examples_of(tmp_path / "out"))
    np.testing.assert_allclose(first["groundtruth_boxes"], [[0, 0, 1, 1], [1 / 6, 2 / 8, 5 / 6, 4 / 8]], rtol=1e-6)
    assert second["groundtruth_boxes"].shape == (0, 4)


def test_a_broken_annotation_is_reported_with_its_line(tmp_path):
    objects = [
        ("cat", (1, 1, 20, 6), 0),
        ("cow", (7, 7, 9, 9), 0),
        ("unicorn", (1, 1, 2, 2), 0),
        ("dog", (1, 1, 2, "x"), 0),
    ]
    voc_folder(tmp_path, objects)
    voc_folder(tmp_path, [], name="b")
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation>\n<size>")
    problems = records.Problems()
    pictures, _ = records.voc(str(tmp_path), "train", problems)
    assert problems.counts == {"box outside": 1, "empty box": 2, "unknown class": 1, "bad annotation": 1}
    assert [one.box for one in pictures[0].objects] == [(0, 0, 8, 6)]
    xml = tmp_path / "Annotations" / "a.xml"
    assert [line.split(": ")[0] for line in problems.lines[:4]] == [f"{xml}:{number}" for number in (3, 4, 5, 6)]
    with pytest.raises(ValueError, match=r"a\.xml:3: a box must lie in its 8x6 image"):
        records.voc(str(tmp_path), "train", records.Problems(strict=True))
    with pytest.raises(Mistake, match="Received 'test'"):
        records.voc(str(tmp_path), "test", problems)


def test_broken_coco_entries_and_files_are_reported_with_their_id(tmp_path):
    for name in ("good", "small"):
        picture_file(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    names = ["good", "small", "broken", "absent"]
    images = [{"id": i, "file_name": f"{name}.png", "height": 6, "width": 8} for i, name in enumerate(names, 1)]
    images[1]["height"] = 7
    box = {"bbox": [1, 1, 3, 2], "area": 6, "iscrowd": 0, "category_id": 3, "image_id": 1}
    outlines = {"size": [6, 8], "counts": [7, 2, 4, 2, 4, 2, 27]}
    annotations = [
        {"id": 1, **box, "segmentation": outlines},
        {"id": 2, **box, "category_id": 4},
        {"id": 3, **box, "image_id": 9},
        {"id": 4, **box, "segmentation": {**outlines, "size": [6, 9]}},
        {"id": 5, **box, "bbox": [9, 1, 3, 2]},
    ]
    problems = records.Problems()
    pictures, categories = records.coco(str(tmp_path), str(coco_file(tmp_path, images, annotations)), problems)
    summary = records.write_records(pictures, categories, str(tmp_path / "out"), "some", problems, 2, progress=False)
    assert summary["problems"] == {
        "unknown class": 1,
        "unknown image": 1,
        "mask size": 1,
        "empty box": 1,
        "wrong size": 1,
        "unreadable file": 1,
        "missing file": 1,
    }
    assert [f"annotation {number}" in line for number, line in zip((2, 3, 4, 5), problems.lines)] == [True] * 4
    assert sum("image 2: an image must have the size of its annotation" in line for line in problems.lines) == 1
    assert (summary["images"], summary["objects"]) == (1, 1)
    (record,) = examples_of(tmp_path / "out")
    mask = tf_example_decoder.TfExampleDecoder(include_mask=True).decode(record)["groundtruth_instance_masks"][0]
    assert np.argwhere(mask.numpy()).tolist() == [[y, x] for y in (1, 2) for x in (1, 2, 3)]  # columns first
    with pytest.raises(ValueError, match="image 2"):
        records.write_records(
            pictures, categories, str(tmp_path / "s"), "some", records.Problems(strict=True), 1, progress=False
        )
    with pytest.raises(ValueError, match=r"COCO's JSON.*Reading"):
        records.coco(str(tmp_path), str(tmp_path / "good.png"), problems)


def test_a_stopped_conversion_is_resumed(tmp_path):
    names = [picture_file(tmp_path / "in" / f"{i}.png").name for i in range(5)]
    pictures = [records.AnnotatedImage(str(tmp_path / "in" / name), i, (6, 8)) for i, name in enumerate(names)]
    arguments = (pictures, [], str(tmp_path / "out"), "some")
    first = records.write_records(*arguments, records.Problems(), shards=3, progress=False)
    shards = sorted((tmp_path / "out").glob("*.tfrecord"))
    contents, times = [p.read_bytes() for p in shards], [p.stat().st_mtime_ns for p in shards]
    shards[1].write_bytes(b"half a shard")  # and its manifest knows the checksum
    again = records.write_records(*arguments, records.Problems(), shards=3, progress=False)
    assert again == first and [p.read_bytes() for p in shards] == contents
    assert [p.stat().st_mtime_ns == time for p, time in zip(shards, times)] == [True, False, True]
    fewer = records.write_records(pictures[1:], *arguments[1:], records.Problems(), shards=3, progress=False)
    assert fewer["images"] == 4  # other pictures, other shards


def test_class_masks_are_relabelled(shared_data, tmp_path):
    root = shared_data("camvid_sub")
    own, names = records.camvid(str(root), "val", records.Problems(strict=True))
    theirs, scored = records.cityscapes(str(root), "val", records.Problems(strict=True))
    assert (len(own), len(names), len(scored)) == (16, 11, 19)
    # The folder's class table: CamVid class -> Cityscapes train id.
    table = np.full(256, 255, np.uint8)
    table[:11] = [10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12]
    masks = []
    for number, pictures in enumerate((own[:1], theirs[:1])):
        records.write_records(
            pictures, [], str(tmp_path / str(number)), "some", records.Problems(strict=True), 1, progress=False
        )
        (record,) = examples_of(tmp_path / str(number))
        masks.append(tf.io.decode_png(segmentation_input.Decoder().decode(record)["image/segmentation/class/encoded"]))
    np.testing.assert_array_equal(table[masks[0].numpy()], masks[1].numpy())
    assert len(np.unique(masks[0])) > 5


def test_masks_of_another_size_or_none(tmp_path):
    city = tmp_path / "leftImg8bit" / "val" / "ulm"
    for name in ("a", "b", "c"):
        picture_file(city / f"{name}_leftImg8bit.png")
    masks = tmp_path / "gtFine" / "val" / "ulm"
    picture_file(masks / "a_gtFine_labelTrainIds.png", mode="L", high=19)
    picture_file(masks / "b_gtFine_labelTrainIds.png", size=(6, 9), mode="L", high=19)
    problems = records.Problems()
    pictures, categories = records.cityscapes(str(tmp_path), "val", problems)
    summary = records.write_records(pictures, categories, str(tmp_path / "out"), "some", problems, progress=False)
    assert summary["images"] == 1 and summary["problems"] == {"missing mask": 1, "wrong size": 1}
    with pytest.raises(Mistake, match="leftImg8bit/train"):
        records.cityscapes(str(tmp_path), "train", problems)


def test_images_that_tensorflow_cannot_read_are_stored_as_png(tmp_path):
    path = picture_file(tmp_path / "a.bmp", kind="BMP")
    records.write_records(
        [records.AnnotatedImage(str(path), 1)], [], str(tmp_path), "some", records.Problems(), 1, progress=False
    )
    (record,) = examples_of(tmp_path)
    stored = tf.train.Example.FromString(record.numpy()).features.feature
    assert stored["image/format"].bytes_list.value == [b"png"]
    image = Image.open(io.BytesIO(stored["image/encoded"].bytes_list.value[0]))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(path)))


def test_a_share_is_the_same_everywhere_and_nested():
    pictures = [records.AnnotatedImage("", number) for number in range(20000)]
    one, ten = records.fraction(pictures, 0.01), records.fraction(pictures, 0.1)
    assert {p.number for p in one} < {p.number for p in ten}
    # A binomial share: five standard deviations around the mean.
    assert abs(len(one) - 200) < 5 * 14 and abs(len(ten) - 2000) < 5 * 43
    assert records.fraction(list(reversed(pictures)), 0.01) == list(reversed(one))
    assert len(records.fraction(pictures[:3], 1e-9)) == 1
    with pytest.raises(ValueError, match="share must be above 0"):
        records.fraction(pictures, 0)
