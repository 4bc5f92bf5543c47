"""Arrays in pickles of every protocol, and what is no array of numbers."""

import os
import pickle

import numpy as np
import pytest

from tf_pixpro.checkpoints import numpy_pickle, pth, unpickle

ARRAYS = {
    "matrix": np.arange(6, dtype="f4").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "flags": np.array([True, False]),
    "big-endian": np.arange(3, dtype=">i4"),
    "scalar": np.array(3, "f2"),
    "empty": np.zeros((0, 3)),
    "not contiguous": np.arange(12).reshape(3, 4)[:, ::2],
    "complex": np.array([1 + 2j]),
}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_numbers(tmp_path, protocol):
    tree = {"model": ARRAYS, "accuracy": np.float64(0.75), "steps": np.int64(7), "twice": [ARRAYS["matrix"]] * 2}
    (tmp_path / "file.pkl").write_bytes(pickle.dumps(tree, protocol))
    found = numpy_pickle.read(tmp_path / "file.pkl")
    assert (found["accuracy"], found["steps"]) == (0.75, 7)
    for name, array in ARRAYS.items():
        assert type(found["model"][name]) is np.ndarray
        np.testing.assert_array_equal(found["model"][name], array)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pth_file_with_numpy_arrays(tmp_path, protocol):
    import zipfile

    with zipfile.ZipFile(tmp_path / "file.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"model": ARRAYS}, protocol))
        archive.writestr("archive/version", "3")
    for name, array in pth.read(tmp_path / "file.pth")["model"].items():
        assert type(array) is np.ndarray
        np.testing.assert_array_equal(array, ARRAYS[name])


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_is_no_array_of_numbers(tmp_path, protocol):
    path = tmp_path / "file.pkl"
    for value in (np.array([Evil(tmp_path / "witness")], object), np.array(["a"]), np.zeros(2, [("x", "f4")])):
        path.write_bytes(pickle.dumps({"model": value, "extra": ARRAYS["matrix"]}, protocol))
        found = numpy_pickle.read(path)
        assert isinstance(found["model"], unpickle.Opaque)
        np.testing.assert_array_equal(found["extra"], ARRAYS["matrix"])
    path.write_bytes(pickle.dumps({"model": ARRAYS["matrix"], "extra": Evil(tmp_path / "witness")}, protocol))
    np.testing.assert_array_equal(numpy_pickle.read(path)["model"], ARRAYS["matrix"])
    assert not (tmp_path / "witness").exists()


def test_no_prefix_of_a_file_is_taken_for_a_whole_one(tmp_path):
    whole, path = pickle.dumps({"model": ARRAYS}, 2), tmp_path / "file.pkl"
    for size in range(0, len(whole), 11):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"file\.pkl"):
            numpy_pickle.read(path)


def test_a_shape_that_would_fill_the_memory(tmp_path):
    pickled = pickle.dumps(np.zeros(16), 2)
    (tmp_path / "file.pkl").write_bytes(pickled.replace(b"K\x10\x85", b"J\xff\xff\xff\x7f\x85"))
    with pytest.raises(ValueError, match=r"file\.pkl"):
        numpy_pickle.read(tmp_path / "file.pkl")
