"""Files found by the names that annotations have for them."""

import pytest

from tf_pixpro.transfer.records import ImageFolder


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
