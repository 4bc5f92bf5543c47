"""What `whole` promises: the old or the new, never half."""

import os

import pytest

from tf_evonorm.atomic import whole


def test_a_file_and_a_folder_appear_at_the_end(tmp_path):
    for kind in (write, fill):
        path = tmp_path / kind.__name__
        for text in ("first", "second"):
            with whole(path) as partial:
                kind(partial, text)
                assert not path.exists() or text not in content(path)
            assert content(path) == text
    assert sorted(os.listdir(tmp_path)) == ["fill", "write"]


@pytest.mark.parametrize("before", [None, "before"])
def test_an_error_leaves_what_was_there(tmp_path, before):
    for kind in (write, fill):
        path = tmp_path / kind.__name__
        if before:
            kind(path, before)
        with pytest.raises(OSError, match="full"), whole(path) as partial:
            kind(partial, "half")
            raise OSError("full")
        assert content(path) == before
    assert not list(tmp_path.glob("*.partial"))


def test_what_a_killed_process_left_is_no_hindrance(tmp_path):
    fill(tmp_path / "kept.partial", "left")
    with whole(tmp_path / "kept") as partial:
        assert not os.path.exists(partial)
        write(partial, "new")
    assert content(tmp_path / "kept") == "new"


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def fill(path, text):
    os.makedirs(path)
    write(os.path.join(path, "inside"), text)


def content(path):
    if path.is_dir():
        return (path / "inside").read_text()
    return path.read_text() if path.exists() else None
