"""PyTorch files without PyTorch: both formats, and the answers to broken, foreign and hostile files."""

import argparse
import collections
import datetime
import enum
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from tf_pixpro.checkpoints import pth, unpickle

RANDOM = np.random.default_rng(0)
TREE = {
    "model": {
        "weight": RANDOM.normal(size=(3, 2, 1, 4)).astype("f4"),
        "half": np.array([1.5, -2], "f2"),
        "double": np.arange(3.0),
        "count": np.array(7),
        "flags": np.array([[True, False]]),
        "none": np.zeros((0, 3), "f4"),
    },
    "epoch": 3,
    "large": -(2**40),
    "options": {"rate": 0.5, "name": "pixpro", "sizes": [1, (2, None)], "on": True},
}


def assert_same(one, two):
    if isinstance(one, np.ndarray):
        assert one.dtype == two.dtype and one.shape == two.shape
        np.testing.assert_array_equal(one, two)
    elif isinstance(one, dict):
        assert list(one) == list(two)
        for key in one:
            assert_same(one[key], two[key])
    else:
        assert one == two and type(one) is type(two)


@pytest.mark.parametrize("legacy", [True, False])
def test_what_is_written_is_read(tmp_path, legacy):
    pth.write(tmp_path / "file.pth", TREE, legacy)
    assert_same(TREE, pth.read(tmp_path / "file.pth"))


@pytest.mark.parametrize("legacy", [True, False])
def test_pytorch_itself_agrees(tmp_path, legacy):
    torch = pytest.importorskip("torch", reason="needs PyTorch, the extra 'pytorch'")
    pth.write(tmp_path / "ours.pth", TREE, legacy)
    theirs = torch.load(tmp_path / "ours.pth", weights_only=True)
    for name, array in TREE["model"].items():
        np.testing.assert_array_equal(theirs["model"][name].numpy(), array)
    weight = torch.randn(4, 3, 2, 2)
    model = {"a": weight, "b": weight.transpose(0, 1)[1:], "c": torch.nn.Parameter(weight), "d": weight.bfloat16()}
    saved = {**theirs, "model": model}
    torch.save(saved, tmp_path / "theirs.pth", _use_new_zipfile_serialization=not legacy)
    found = pth.read(tmp_path / "theirs.pth")
    assert found["options"] == TREE["options"] and found["large"] == TREE["large"]
    for name, tensor in model.items():
        np.testing.assert_array_equal(found["model"][name], tensor.detach().float().numpy())


class Evil:
    """Pickled, it would run a command."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


def zipped(path, pickled, **members):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)


def cut(path, share=0.6):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def tensor(shape=(2, 2), strides=(2, 1), offset=0, kind="FloatStorage", count=4, name="_rebuild_tensor_v2"):
    """A zip file's data.pkl with one tensor that says what it likes."""
    pack = pth._Pickled(legacy=False)
    storage = (
        b"(" + pack._of("storage") + f"ctorch\n{kind}\n".encode() + b"".join(map(pack._of, ("0", "cpu", count))) + b"tQ"
    )
    rest = b"".join(map(pack._of, (offset, shape, strides, False, None)))
    return b"\x80\x02}" + pack._of("w") + f"ctorch._utils\n{name}\n".encode() + b"(" + storage + rest + b"tRs."


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("<html>quota exceeded</html>")


def hdf5(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))


def cut_zip(path):
    pth.write(path, TREE, legacy=False)
    cut(path)


def cut_in_a_storage(path):
    pth.write(path, TREE)
    cut(path, 0.97)


def cut_in_the_pickle(path):
    pth.write(path, TREE)
    cut(path, 0.3)


def another_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "text")


def torchscript(path):
    zipped(path, b"", **{"constants.pkl": b"", "code/model.py": b"print(1)"})


def compressed(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")


def hostile_zip(path):
    zipped(path, pickle.dumps(Evil(path.parent / "witness"), 2))


def hostile_legacy(path):
    path.write_bytes(
        pth._LEGACY + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + pickle.dumps(Evil(path.parent / "witness"), 2)
    )


def a_whole_module(path):
    zipped(path, b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.")


def no_storage(path):
    zipped(path, tensor())


def a_short_storage(path):
    zipped(path, tensor(), **{"data/0": bytes(12)})


def a_tensor_beyond_its_storage(path):
    zipped(path, tensor(offset=1), **{"data/0": bytes(16)})


def a_tensor_that_would_fill_the_memory(path):
    zipped(path, tensor((2**20, 2**20), (0, 0)), **{"data/0": bytes(16)})


def a_negative_stride(path):
    zipped(path, tensor(strides=(-2, 1), offset=3), **{"data/0": bytes(16)})


def complex_numbers_in_the_old_format(path):
    pth.write(path, TREE)
    path.write_bytes(path.read_bytes().replace(b"FloatStorage", b"ComplexFloatStorage"))


def a_flipped_byte(path):
    pth.write(path, TREE, legacy=False)
    data = bytearray(path.read_bytes())
    at = data.index(TREE["model"]["weight"].tobytes())
    data[at] ^= 1
    path.write_bytes(data)


def a_name_of_many_bytes(path):
    """The length of a member's name is damaged: zipfile reads what follows as part of the name."""
    pth.write(path, TREE, legacy=False)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x03\x04", 4) + 26  # of the second member, where its header has the length of its name
    data[at : at + 2] = (60000).to_bytes(2, "little")
    path.write_bytes(data)


def nested(path):
    zipped(path, b"\x80\x02" + b"]" * 100000 + b"a" * 99999 + b".")


def doubled(path):
    """Forty lists, each of which holds the one before twice: a memory of 2 to the 40 where each is copied."""
    lists = b"".join(bytes([*b"](h", n, *b"h", n, *b"eq", n + 1]) for n in range(40))
    zipped(path, b"\x80\x02]q\x00" + lists + b".")


def unbalanced(path):
    zipped(path, b"\x80\x02tR.")


BROKEN = {
    empty: "It is empty",
    text: "text that begins '<html>quota",
    hdf5: "an HDF5 file",
    cut_zip: "damaged or incomplete zip",
    cut_in_a_storage: r"Storage '\d' of \d+ numbers is cut off: \d+ of \d+ bytes",
    cut_in_the_pickle: "[Pp]ickle|[Nn]ot enough|[Ee]xpected",
    another_zip: "zip archive without one data.pkl, but with word/document.xml",
    torchscript: "TorchScript archive, a program",
    compressed: "archive/data.pkl is compressed",
    hostile_zip: "asks for posix.system|asks for nt.system",
    hostile_legacy: "asks for posix.system|asks for nt.system",
    a_whole_module: "asks for torch.nn.modules.linear.Linear",
    no_storage: "Storage '0' is missing",
    a_short_storage: "should have 4 numbers. Received 3",
    a_tensor_beyond_its_storage: "reaches beyond its 4 stored numbers",
    a_tensor_that_would_fill_the_memory: "reaches beyond its 4 stored numbers",
    a_negative_stride: "which are none",
    complex_numbers_in_the_old_format: "numbers of the kind ComplexFloatStorage, which cannot be passed over",
    a_flipped_byte: "damaged or incomplete zip archive .*CRC",
    a_name_of_many_bytes: "damaged or incomplete zip",
    nested: "nested too deep",
    unbalanced: "whole and well formed",
}


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_a_broken_file_is_named_by_its_kind(tmp_path, make):
    path = tmp_path / "file.pth"
    make(path)
    with pytest.raises(ValueError, match=BROKEN[make]) as error:
        pth.read(path)
    assert str(error.value).startswith(f"{str(path)!r} must be a checkpoint that torch.save has written. ")
    assert len(str(error.value)) < 1000
    assert not (tmp_path / "witness").exists()


class Colour(enum.Enum):
    RED = 1


EXTRAS = {
    "numpy_scalar": np.float64(0.75),
    "array": np.arange(3),
    "dtype": np.dtype("float32"),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "path": pathlib.PurePosixPath("a/b"),
    "namespace": argparse.Namespace(lr=0.1),
    "set": {1, 2},
    "frozenset": frozenset({1, 2}),
    "datetime": datetime.datetime(2020, 1, 1),
    "enum": Colour.RED,
    "complex": 1j,
    "bytearray": bytearray(b"ab"),
    "class": collections.Counter,
    "counter": collections.Counter("ab"),
    "deque": collections.deque([1, 2]),
    "opaque_key": {pathlib.PurePosixPath("a"): 1},
    "slice": slice(1, 2),
    "numpy_text": np.str_("cat"),
    "numpy_texts": np.array(["cat", "dog"]),
    "numpy_objects": np.array([None, {1: 2}]),
    "numpy_date": np.datetime64("2020-01-01"),
    "numpy_records": np.zeros(2, [("a", "f4")]),
    "dtype_of_records": np.dtype([("a", "f4")]),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", EXTRAS)
def test_extras_beside_weights_are_read_as_data(tmp_path, kind, protocol):
    path = tmp_path / "file.pth"
    zipped(path, pickle.dumps({"epoch": 3, "extra": EXTRAS[kind], "last": [1, 2]}, protocol))
    tree = pth.read(path)
    assert tree["epoch"] == 3 and tree["last"] == [1, 2] and "extra" in tree


@pytest.mark.parametrize(
    "options",
    [
        dict(name="_rebuild_sparse_tensor"),
        dict(name="_rebuild_tensor_v3"),
        dict(name="_rebuild_qtensor"),
        dict(kind="ComplexFloatStorage"),
        dict(kind="UntypedStorage"),
    ],
)
def test_tensors_that_numpy_has_no_array_for_become_placeholders(tmp_path, options):
    zipped(tmp_path / "file.pth", tensor(**options), **{"data/0": bytes(16)})
    assert isinstance(pth.read(tmp_path / "file.pth")["w"], unpickle.Opaque)


def test_parameters_with_attributes_are_arrays(tmp_path):
    content = tensor()
    plain = content[content.index(b"ctorch._utils") : content.index(b"s.")]
    parameter = b"ctorch._utils\n_rebuild_parameter_with_state\n(" + plain + b"\x88N}tR"
    zipped(tmp_path / "file.pth", content.replace(plain, parameter), **{"data/0": bytes(16)})
    np.testing.assert_array_equal(pth.read(tmp_path / "file.pth")["w"], np.zeros((2, 2), "f4"))
    subclass = b"ctorch._tensor\n_rebuild_from_type_v2\n(" + plain.replace(b"\n(", b"\nctorch\nTensor\n(", 1) + b"}tR"
    subclass = subclass.replace(b"tR}tR", b"t}tR")
    zipped(tmp_path / "file.pth", content.replace(plain, subclass), **{"data/0": bytes(16)})
    np.testing.assert_array_equal(pth.read(tmp_path / "file.pth")["w"], np.zeros((2, 2), "f4"))


def test_a_defaultdict_is_read_as_its_items(tmp_path):
    zipped(tmp_path / "file.pth", pickle.dumps({"extra": EXTRAS["defaultdict"]}, 2))
    assert pth.read(tmp_path / "file.pth") == {"extra": {"a": [1]}}


def test_a_large_number_in_the_memo_takes_no_memory():
    """`pickle.Unpickler` makes a list of that length: 32 GB from 9 bytes."""
    code = "import io, resource; from tf_pixpro.checkpoints import unpickle\n"
    code += "resource.setrlimit(resource.RLIMIT_DATA, (2**34, 2**34))\n"
    code += "print(unpickle.load(io.BytesIO(b'\\x80\\x02Nr\\xff\\xff\\xff\\x7f.'), {}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "None\n", done.stderr


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_extra_is_not_run(tmp_path, protocol):
    zipped(tmp_path / "file.pth", pickle.dumps({"epoch": 3, "extra": Evil(tmp_path / "witness")}, protocol))
    tree = pth.read(tmp_path / "file.pth")
    assert tree["epoch"] == 3 and isinstance(tree["extra"], unpickle.Opaque)
    assert not (tmp_path / "witness").exists()


def test_what_stands_in_a_file_twice_is_read_once(tmp_path):
    doubled(tmp_path / "file.pth")
    tree = pth.read(tmp_path / "file.pth")
    for _ in range(40):
        assert tree[0] is tree[1]
        tree = tree[0]
    assert tree == []


def test_no_prefix_of_a_file_is_taken_for_a_whole_one(tmp_path):
    for legacy in (True, False):
        pth.write(tmp_path / "file.pth", TREE, legacy)
        whole = (tmp_path / "file.pth").read_bytes()
        for size in range(0, len(whole), 37):
            (tmp_path / "part.pth").write_bytes(whole[:size])
            with pytest.raises(ValueError, match=r"torch\.save"):
                pth.read(tmp_path / "part.pth")


@pytest.mark.parametrize("legacy", [True, False])
def test_random_damage_gives_an_error_or_a_tree(tmp_path, legacy):
    random = np.random.default_rng(4)
    pth.write(tmp_path / "file.pth", TREE, legacy)
    whole, refused = (tmp_path / "file.pth").read_bytes(), 0
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            data[random.integers(len(data))] = random.integers(256)
        (tmp_path / "part.pth").write_bytes(data)
        try:
            pth.read(tmp_path / "part.pth")
        except ValueError:
            refused += 1
    assert refused > 300


def test_other_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match="where there is none"):
        pth.read(tmp_path / "nothing.pth")
    with pytest.raises(TypeError, match="Received object"):
        pth.write(tmp_path / "file.pth", {"a": object()})
    with pytest.raises(TypeError, match="Received complex128"):
        pth.write(tmp_path / "file.pth", {"a": np.array([1j])})
