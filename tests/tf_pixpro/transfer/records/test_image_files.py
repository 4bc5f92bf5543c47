"""Files found by the names that annotations have for them."""

import io
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_pixpro.transfer.records import ImageFolder
from tf_pixpro.transfer.records.image_files import stored_image


@pytest.mark.parametrize("below", ["", "images/", "upload\\3\\", "/data/upload/3/"])
def test_the_digits_before_uploaded_names_are_dropped(tmp_path, below):
    (tmp_path / "photo-1.jpg").write_bytes(b"")
    assert ImageFolder(str(tmp_path)).find(f"{below}1a2b3c4d-photo-1.jpg") == str(tmp_path / "photo-1.jpg")


def test_two_uploads_of_one_name_are_not_one_image(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    files = ImageFolder(str(tmp_path))
    assert files.find("1a2b3c4d-photo.jpg") == files.find("1a2b3c4d-photo.jpg") == str(tmp_path / "photo.jpg")
    assert files.find("00ff00ff-photo.jpg") is None
    assert files.find("photo.jpg") == str(tmp_path / "photo.jpg")


def test_a_file_that_really_has_such_a_name_is_taken(tmp_path):
    for name in ("1a2b3c4d-photo.jpg", "photo.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert ImageFolder(str(tmp_path)).find("1a2b3c4d-photo.jpg") == str(tmp_path / "1a2b3c4d-photo.jpg")


@pytest.mark.parametrize("name", ["1a2b3c4-photo.jpg", "1A2B3C4G-photo.jpg", "1a2b3c4d_photo.jpg", "1a2b3c4d-"])
def test_other_beginnings_belong_to_the_name(tmp_path, name):
    (tmp_path / "photo.jpg").write_bytes(b"")
    assert ImageFolder(str(tmp_path)).find(name) is None


@pytest.mark.parametrize("stored, named", [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize(
    "name", ["caf\N{LATIN SMALL LETTER E WITH ACUTE}.jpg", "\N{LATIN SMALL LETTER E WITH ACUTE}/a.jpg"]
)
def test_accents_composed_or_apart_name_one_file(tmp_path, stored, named, name):
    path = tmp_path / unicodedata.normalize(stored, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    files = ImageFolder(str(tmp_path))
    assert files.find(unicodedata.normalize(named, name)) == str(path)
    if "/" not in name:
        assert files.by_stem(unicodedata.normalize(named, name[:-4])) == str(path)
        assert files.find(unicodedata.normalize(named, name).upper()) == str(path)


def test_the_stem_in_another_case_is_the_last_choice(tmp_path):
    (tmp_path / "A.JPG").write_bytes(b"")
    assert ImageFolder(str(tmp_path)).by_stem("a") == str(tmp_path / "A.JPG")
    (tmp_path / "a.png").write_bytes(b"")
    assert ImageFolder(str(tmp_path)).by_stem("a") == str(tmp_path / "a.png")


def test_names_written_as_in_urls(tmp_path):
    for name in ("my photo.jpg", "100%.jpg", "a%20b.jpg", "a b.jpg"):
        (tmp_path / name).write_bytes(b"")
    files = ImageFolder(str(tmp_path))
    assert files.find("images/my%20photo.jpg") is None and files.find("my%20photo.jpg") == str(
        tmp_path / "my photo.jpg"
    )
    assert files.find("100%.jpg") == str(tmp_path / "100%.jpg")
    assert files.find("a%20b.jpg") == str(tmp_path / "a%20b.jpg")


@pytest.mark.parametrize("kind, lost", [("JPEG", 2), ("PNG", 12)])
def test_a_file_without_its_end_is_stored_as_training_reads_it(kind, lost):
    file = io.BytesIO()
    y, x = np.mgrid[:24, :31]
    Image.fromarray(np.stack([x * 8, y * 10, (x + y) * 4], -1).astype(np.uint8)).save(file, kind, quality=90)
    whole, shown = file.getvalue(), np.asarray(Image.open(file))
    assert stored_image(whole)[:2] == (whole, kind.lower())
    encoded, format, size = stored_image(whole[:-lost])
    assert (format, size) == ("png", (24, 31))
    np.testing.assert_array_equal(tf.io.decode_image(encoded), shown)
