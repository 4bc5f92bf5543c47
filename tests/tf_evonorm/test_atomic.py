"""What `atomic_path` promises: the old or the new, never half, whenever its process is killed."""

import os
import signal

import pytest
import tensorflow as tf

from tf_evonorm import atomic
from tf_evonorm.atomic import atomic_path, recover


def test_a_file_and_a_folder_appear_at_the_end(tmp_path):
    for kind in (write, fill):
        path = tmp_path / kind.__name__
        for text in ("first", "second"):
            with atomic_path(path) as partial:
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
        with pytest.raises(OSError, match="full"), atomic_path(path) as partial:
            kind(partial, "half")
            raise OSError("full")
        assert content(path) == before
    assert not list(tmp_path.glob("*.partial"))


def test_a_file_and_a_folder_replace_each_other(tmp_path):
    path = tmp_path / "result"
    for kind, text in ((write, "file"), (fill, "folder"), (write, "file again")):
        with atomic_path(path) as partial:
            kind(partial, text)
        assert content(path) == text
    assert os.listdir(tmp_path) == ["result"]


def test_leftovers_of_version_0_1_are_removed(tmp_path):
    fill(tmp_path / "kept.partial", "left")
    with atomic_path(tmp_path / "kept") as partial:
        assert not os.path.exists(partial)
        write(partial, "new")
    assert os.listdir(tmp_path) == ["kept"]


@pytest.mark.parametrize("kinds", [("write", "write"), ("fill", "fill"), ("write", "fill"), ("fill", "write")])
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_point(tmp_path, kinds, after):
    """SIGKILL before or after each change of the file system; what is there at the next start is the old or the new."""
    old, new = (globals()[kind] for kind in kinds)
    point = outcomes = 0
    while True:
        folder = tmp_path / f"{point}"
        folder.mkdir()
        path = folder / "result"
        old(path, "old")
        if not killed(lambda path=path: replace(path, new, "new"), point, after):
            break
        recover(path)
        assert content(path) in ("old", "new"), f"killed at {point}: {os.listdir(folder)}"
        outcomes |= {"old": 1, "new": 2}[content(path)]
        with pytest.raises(OSError, match="full"), atomic_path(path):  # the failing attempt loses nothing more
            raise OSError("full")
        assert content(path) in ("old", "new")
        replace(path, new, "newer")
        assert content(path) == "newer" and os.listdir(folder) == ["result"]
        point += 1
    assert point >= 1 and content(path) == "new" and (outcomes == 3 or kinds == ("write", "write"))


def test_a_neighbour_of_a_similar_name_is_left_alone(tmp_path):
    fill(tmp_path / "result.old.machine-1-0.replaced", "of result.old")
    write(tmp_path / "result.txt.partial", "of result.txt")
    replace(tmp_path / "result", fill, "new")
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("kind", ["write", "fill"])
def test_two_processes_write_the_same_path(tmp_path, kind):
    """Whatever their order, the result is complete and one of theirs, and nothing else is left."""
    path, children = tmp_path / "result", []
    for number in range(3):
        child = os.fork()
        if not child:
            code = 1
            try:
                for attempt in range(20):
                    replace(path, globals()[kind], f"{number} {attempt} " + "x" * 1000)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0, 0]
    assert len(content(path)) > 1000 and os.listdir(tmp_path) == ["result"]


def test_remote_file_systems(tmp_path):
    """Everything goes through tf.io.gfile: `ram://` is one that the operating system does not know."""
    path = f"ram://{tmp_path.name}/result"
    for text in ("first", "second"):
        with atomic_path(path) as partial, tf.io.gfile.GFile(partial, "w") as file:
            file.write(text)
        with tf.io.gfile.GFile(path) as file:
            assert file.read() == text


def killed(action, point, after):
    """Whether a process that does this was killed at its change of that number."""
    child = os.fork()
    if not child:
        count = 0

        def watched(change):
            def changed(*arguments, **options):
                nonlocal count
                kill, count = count == point, count + 1
                if kill and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = change(*arguments, **options)
                if kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return changed

        for name in ("rename", "rmtree", "remove"):
            setattr(atomic.tf.io.gfile, name, watched(getattr(tf.io.gfile, name)))
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def replace(path, kind, text):
    with atomic_path(path) as partial:
        kind(partial, text)


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
