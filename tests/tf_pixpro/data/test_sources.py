"""Sources of files and scenes: the same images whatever carries them; wrong ones are refused."""

import io
import os
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from image_sources import assert_same, batches, jpeg, records, write, zip_of
from PIL import Image

from tf_evonorm.mistakes import Mistake
from tf_pixpro import data
from tf_pixpro.data import scenes


def test_folder_and_zip_give_the_same_bytes(folder, files, tmp_path):
    expected = batches(data.source(folder), 3)
    assert expected[0]["view1"].shape == (4, 16, 16, 3) and expected[0]["box1"].dtype == np.float32
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert_same(batches(data.source(zip_of(tmp_path / f"{compression}.zip", files, compression)), 3), expected)
    assert_same(batches(data.source(folder), 3), expected)
    assert not np.array_equal(batches(data.source(folder), 1, seed=6)[0]["view1"], expected[0]["view1"])


def test_remote_folders_and_zips_give_the_same_bytes(folder, files, tmp_path):
    root = "ram://remote_images"
    for name, content in files.items():
        tf.io.gfile.makedirs(f"{root}/folder/{os.path.dirname(name)}")
        with tf.io.gfile.GFile(f"{root}/folder/{name}", "wb") as file:
            file.write(content)
    tf.io.gfile.copy(str(zip_of(tmp_path / "a.zip", files, zipfile.ZIP_DEFLATED)), f"{root}/a.zip")
    expected = data.source(folder)
    for path in (f"{root}/folder", f"{root}/a.zip"):
        source = data.source(path)
        assert source.class_names == ("cat", "dog")
        assert_same(batches(source, 3), batches(expected, 3))


def test_labels_come_from_folders(folder):
    source = data.source(folder, split="train")
    assert source.class_names == ("cat", "dog")
    rows = list(data.labelled_dataset(source, (16, 16), batch=4))
    assert [len(row["label"]) for row in rows] == [4, 4, 2] and rows[0]["image"].shape == (4, 16, 16, 3)
    assert sorted(np.concatenate([row["label"] for row in rows])) == [0] * 5 + [1] * 5
    assert sum(len(row["label"]) for row in data.labelled_dataset(source, (16, 16), limit=3)) == 3


def test_scenes_are_a_source():
    source = data.source("scenes", num_examples=6, size=(32, 32))
    assert batches(source, 1)[0]["view2"].shape == (4, 16, 16, 3) and len(source.class_names) == 8


def test_drawn_scenes_are_kept_within_a_bound(monkeypatch):
    monkeypatch.setattr("tf_pixpro.data.sources._SCENE_BYTES", 3 * 32 * 32 * 4)
    drawn = []
    monkeypatch.setattr(scenes, "scene", lambda *a, draw=scenes.scene: drawn.append(a[0]) or draw(*a))
    source = data.source("scenes", num_examples=6, size=(32, 32))
    for index in (0, 1, 0, 2, 3, 4, 1):
        source.read(tf.constant(index))
    assert drawn == [0, 1, 2, 3, 4, 1]


def test_wrong_sources_are_refused(tmp_path, files):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.zip").write_bytes(b"PK not a zip")
    small = write(tmp_path / "small", {"a.jpg": jpeg(0, (60, 20))})
    fake = write(tmp_path / "fake", {"a.jpg": b"no image at all"})
    for make, error, words in [
        (lambda: data.source(tmp_path / "nowhere"), FileNotFoundError, "where there is nothing"),
        (lambda: data.source(tmp_path / "nowhere.zip"), FileNotFoundError, "where there is nothing"),
        (lambda: data.source(tmp_path / "empty"), ValueError, "images .* are needed"),
        (lambda: data.source(tmp_path / "notes.txt"), ValueError, "Received the file"),
        (lambda: data.source(tmp_path / "broken.zip"), ValueError, "Create it again"),
        (lambda: data.source(small), ValueError, "sides of at least 32 pixels.*60x20"),
        (lambda: data.source(fake), ValueError, "a.jpg and others are none"),
        (lambda: data.source(write(tmp_path / "ok", files), split="val"), ValueError, "split='val' and .* has train"),
        (
            lambda: data.source(records(tmp_path / "b.tfrecord", files, "image")),
            ValueError,
            "need the key 'image/encoded'",
        ),
        (lambda: data.source("ram://nowhere/*"), FileNotFoundError, "where there is nothing"),
        (lambda: data.source("nosuch://a/b"), Mistake, "a file system that TensorFlow reaches.*nosuch"),
        (
            lambda: data.source(records(tmp_path / "c.tfrecord", files), num_examples=9),
            Mistake,
            "Received 9 and .* with 10",
        ),
        (lambda: data.source("tfds:no_such_set"), ValueError, "TFDS data set and split are needed"),
        (lambda: data.source(tmp_path / "ok", size=3), ValueError, "size to scenes. Received size with path"),
        (lambda: data.pretrain_dataset(data.source("scenes"), size=96), ValueError, r"\(height, width\) .* size=96"),
        (lambda: batches(data.source(tmp_path / "ok"), 1, global_batch=0), ValueError, "must divide over the replicas"),
    ]:
        with pytest.raises(error, match=words):
            make()


def test_an_index_belongs_to_records(tmp_path, files):
    folder, zipped = write(tmp_path / "images", files), zip_of(tmp_path / "a.zip", files)
    for path in (folder, zipped, "scenes"):
        with pytest.raises(Mistake, match=r"index belongs to TFRecords.*Received index with path="):
            data.source(path, index=str(tmp_path))


def test_real_photos_in_their_zip(shared_data):
    source = data.source(shared_data("photos/flowers_sub.zip"), split="train")
    assert source.num_examples == 140 and source.class_names == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert np.isfinite(batches(source, 1, size=(64, 64))[0]["view1"]).all()


def test_names_that_are_not_utf8_are_read(tmp_path):
    os.makedirs(os.path.join(os.fsencode(tmp_path), b"caf\xe9"))
    for number in range(4):
        with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9", b"%d\xff.jpg" % number), "wb") as file:
            file.write(jpeg(number))
    source = data.source(tmp_path)
    assert source.num_examples == 4 and len(batches(source, 1)[0]["view1"]) == 4


def test_content_decides_and_not_the_name(tmp_path):
    image = np.asarray(Image.open(io.BytesIO(jpeg(0))))
    kinds = ["WEBP", "TIFF", "PNG", "GIF", "BMP", "JPEG2000"]
    for number, kind in enumerate(kinds):
        Image.fromarray(image).save(tmp_path / f"{number}.jpg", kind)
    source = data.source(tmp_path)
    rows = [source.read(tf.constant(i)) for i in range(len(kinds))]
    assert all(np.isfinite(batch["view1"]).all() for batch in batches(source, 3, max_bad_share=0.0))
    assert [row["bytes"].numpy()[:4] for row in rows[:3]] == [b"RIFF", b"II*\0", b"\x89PNG"]


@pytest.mark.parametrize("name", ["UPPER.ZIP", "backslash.zip", "dot.zip", "above.zip", "doubled.zip"])
def test_zips_of_other_writers_have_splits_and_classes(tmp_path, files, name):
    path, text = tmp_path / name, {"backslash.zip": "\\", "doubled.zip": "//"}.get(name, "/")
    start = {"dot.zip": "./", "above.zip": "../", "doubled.zip": "/"}.get(name, "")
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            info = zipfile.ZipInfo("x")
            info.filename = start + member.replace("/", text)
            archive.writestr(info, content)
    source = data.source(path, split="train")
    assert source.class_names == ("cat", "dog") and source.num_examples == 10
    assert len(batches(source, 1, max_bad_share=0.0)[0]["view1"]) == 4


def test_zips_that_python_cannot_read_are_refused(tmp_path, files):
    whole = zip_of(tmp_path / "a.zip", files, zipfile.ZIP_DEFLATED).read_bytes()
    start = whole.index(b"PK\x01\x02")
    for offset, value, words in [(8, 1, "must not be encrypted"), (10, 9, "packed by deflate64"), (10, 98, "ppmd")]:
        changed = bytearray(whole)
        position = start
        while position >= 0:
            changed[position + offset] = value
            position = whole.find(b"PK\x01\x02", position + 4)
        (tmp_path / "b.zip").write_bytes(changed)
        with pytest.raises(Mistake, match=words):
            data.source(tmp_path / "b.zip")


def test_a_damaged_member_of_a_zip_is_a_bad_image(tmp_path, files, caplog):
    path = zip_of(tmp_path / "a.zip", files)
    content = bytearray(path.read_bytes())
    content[content.index(jpeg(3)) + 200] ^= 255
    path.write_bytes(content)
    assert len(batches(data.source(path), 30)) == 30 and "03.jpg" in caplog.text


def test_huge_images_are_reported_and_decoded(tmp_path, files, caplog, monkeypatch):
    monkeypatch.setattr("tf_pixpro.data.sources.MAX_PIXELS", 2000)
    source = data.source(write(tmp_path / "a", files))
    assert "10 of 10 images looked at have more than" in caplog.text and "(60x48)" in caplog.text
    assert len(batches(source, 1)[0]["view1"]) == 4
