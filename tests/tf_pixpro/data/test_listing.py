"""Which files are images, of which split and class."""

import os

import pytest

from tf_evonorm.mistakes import Mistake
from tf_pixpro.data import listing


def test_links_are_followed_and_circles_cut(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "plain" / name).mkdir(parents=True)
        (tmp_path / "plain" / name / "a.jpg").write_bytes(b"")
    (tmp_path / "links").mkdir()
    for name in ("cat", "dog"):
        os.symlink(tmp_path / "plain" / name, tmp_path / "links" / name)
    os.symlink(tmp_path / "links", tmp_path / "plain" / "cat" / "around")
    os.symlink(tmp_path / "nowhere", tmp_path / "links" / "broken.jpg")
    assert list(listing.walk(str(tmp_path / "links"))) == ["cat/a.jpg", "dog/a.jpg"]


@pytest.mark.parametrize(
    "name",
    [
        "cat/._a.jpg",
        ".ipynb_checkpoints/a-checkpoint.jpg",
        "cat/@eaDir/a.jpg/SYNOFILE_THUMB_M.jpg",
        "$RECYCLE.BIN/S-1/a.jpg",
        "__MACOSX/cat/a.jpg",
        "cat/.thumbnails/a.png",
        "cat/Thumbs.db",
        ".DS_Store",
        "#recycle/a.jpg",
    ],
)
def test_leftovers_of_systems_and_tools_never_count(name, caplog):
    images, labels, classes = listing.choose("photos", ["cat/a.jpg", "cat/b.png", name], None)
    assert (images, labels, classes) == (["cat/a.jpg", "cat/b.png"], [-1, -1], ()) and "left out" not in caplog.text


def test_other_formats_are_counted_by_ending(caplog):
    names = [
        *(f"{i}.jpg" for i in range(3)),
        *(f"{i}.CR2" for i in range(4)),
        "a.webp",
        "b.TIF",
        "c.jfif",
        "list",
        "x.psd",
    ]
    images, _, _ = listing.choose("photos", names, None)
    assert images == ["0.jpg", "1.jpg", "2.jpg", "a.webp", "b.TIF", "c.jfif"]
    assert "photos: 6 images; other files are left out: 4 .cr2, 1 without ending, 1 .psd" in caplog.text
    with pytest.raises(Mistake, match=r"are needed. Received 'photos' with 2 other files: 2 \.cr2\. Convert"):
        listing.choose("photos", ["a.cr2", "b.cr2"], None)


SPLITS = [
    (["train/train/a.jpg", "train/bus/a.jpg", "val/train/a.jpg", "val/bus/a.jpg"], "train", [0, 1]),
    (["train/train/a.jpg", "train/bus/a.jpg", "val/train/a.jpg", "val/bus/a.jpg"], "val", [2, 3]),
    (["set/train/cat/a.jpg", "set/train/dog/a.jpg", "set/val/train/a.jpg"], "train", [0, 1]),
    (["images/train/cat/a.jpg", "images/val/cat/a.jpg", "masks/train/cat/a.png"], "images/train", [0]),
    (["train/a.jpg", "val/a.jpg", "a.jpg"], "train", [0]),
]


@pytest.mark.parametrize(("names", "split", "expected"), SPLITS)
def test_a_split_is_a_folder_at_the_top(names, split, expected):
    assert listing.choose("photos", names, split)[0] == [names[i] for i in expected]


def test_a_class_named_like_the_split_is_no_split():
    for names in (["val/train/a.jpg", "val/bus/a.jpg"], ["cat/train/a.jpg", "dog/val/a.jpg"]):
        with pytest.raises(Mistake, match="a split is a folder at the top"):
            listing.choose("photos", names, "train")
    with pytest.raises(Mistake, match="such as 'images/train'"):
        listing.choose("photos", ["images/train/cat/a.jpg", "masks/train/cat/a.png"], "train")


def test_accents_composed_or_apart_name_one_class():
    names = ["caf\u00e9/a.jpg", "cafe\u0301/b.jpg", "bar/c.jpg"]
    assert listing.choose("photos", names, None) == (names, [1, 1, 0], ("bar", "caf\u00e9"))


@pytest.mark.parametrize("other, words", [("Cat/b.jpg", "capitals"), ("cat /b.jpg", "spaces"), ("b.jpg", "1 images")])
def test_classes_that_are_hardly_meant_are_reported(caplog, other, words):
    assert len(listing.choose("photos", ["cat/a.jpg", other], None)[2]) == 2
    assert words in caplog.text


def test_labels_of_many_classes_are_numbers_of_names():
    names = [f"{i:05d}/{j}.jpg" for i in range(3000) for j in range(2)]
    images, labels, classes = listing.choose("photos", names, None)
    assert images == names and [classes[label] for label in labels] == [name[:5] for name in names]
