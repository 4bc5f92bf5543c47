"""PyTorch's checkpoint files without PyTorch: tensors are NumPy arrays, and nothing in a file is run."""

from __future__ import annotations

import dataclasses
import io
import mmap
import os
import struct
import textwrap
import zipfile
import zlib

import numpy as np

from tf_evonorm.mistakes import Mistake
from tf_pixpro.checkpoints import numpy_pickle, unpickle

# What a storage is called, and its numbers; bfloat16 becomes float32.
STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # the magic number, pickled
_OTHERS = {
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\x93NUMPY": "a NumPy array",
}
# What zipfile and NumPy make of damaged bytes, beside ValueError.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, OverflowError, MemoryError, TypeError)
_NO_FILE = "must be a checkpoint that torch.save has written"


def read(path: str | os.PathLike) -> object:
    """Reads a file of torch.save, of the zip format (since PyTorch 1.6) or the one before.

    Args:
      path: of the file.

    Returns:
      What was saved: dicts, lists, tuples, numbers and texts; a tensor as a NumPy array of its shape (bfloat16 as
      float32), an `argparse.Namespace` as a dict, an object of any other class, and a tensor that is not dense or whose
      numbers NumPy lacks, as an `unpickle.Opaque` placeholder.

    Raises:
      FileNotFoundError: if there is no such file.
      Mistake: if the file is of another kind, cut off, damaged, or holds no well-formed data.

    Source: PyTorch's `torch/serialization.py`; what is called is less than `weights_only=True` allows there.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"a .pth file is needed. Received {path!r}, where there is none.")
    size = os.path.getsize(path)
    try:
        with open(path, "rb") as file:
            start = file.read(len(_LEGACY))
            if start.startswith(b"PK"):
                return _read_zip(file)
            if start != _LEGACY:
                raise Mistake(_foreign(start, size))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read_legacy(data)
    except (*_DAMAGE, OSError, ValueError) as error:
        raise Mistake(f"{path!r} {_NO_FILE}. {_sentence(error)}") from error


def write(path: str | os.PathLike, tree: object, legacy: bool = True) -> str | os.PathLike:
    """Writes what `read` gives as a file that torch.load reads, with `weights_only=True` too.

    Args:
      path: of the file; one of that name is replaced.
      tree: dicts, lists, tuples, numbers, texts, None and NumPy arrays.
      legacy: the format that all versions of PyTorch read, the authors' 1.4 included; else the zip format.

    Returns:
      The path.

    Raises:
      TypeError: if the tree holds anything else.
    """
    pickled = _Pickled(legacy)
    body = pickled.document(tree)
    if legacy:
        info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
        keys = [str(key) for key in range(len(pickled.arrays))]
        with open(path, "wb") as file:
            for part in (_MAGIC, 1001, info):
                file.write(_Pickled(legacy).document(part))
            file.write(body)
            file.write(_Pickled(legacy).document(keys))
            for array in pickled.arrays:
                file.write(np.int64(array.size).astype("<i8").tobytes())
                file.write(array.tobytes())
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/byteorder", "little")
        for key, array in enumerate(pickled.arrays):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return path


@dataclasses.dataclass
class _Storage:
    kind: str
    key: str
    count: int
    numbers: np.ndarray | None = None

    def fill(self, data):
        numbers = np.frombuffer(data, STORAGES[self.kind])
        if len(numbers) != self.count:
            raise Mistake(f"Storage {self.key!r} should have {self.count} numbers. Received {len(numbers)}.")
        if self.kind == "BFloat16Storage":
            numbers = (numbers.astype("<u4") << 16).view("<f4")
        self.numbers = numbers


@dataclasses.dataclass
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple

    def array(self):
        numbers, shape = self.storage.numbers, self.shape
        if numbers is None:
            raise ValueError(f"Storage {self.storage.key!r} is missing.")
        whole = [self.offset, *shape, *self.strides]
        if len(shape) != len(self.strides) or any(not isinstance(n, int) or n < 0 for n in whole):
            raise ValueError(f"A tensor has shape {shape} and strides {self.strides}, which are none.")
        count = int(np.prod(shape, dtype=object))
        last = self.offset + sum((n - 1) * s for n, s in zip(shape, self.strides))
        if count and (last >= len(numbers) or count > len(numbers)):
            raise ValueError(f"A tensor of shape {shape} reaches beyond its {len(numbers)} stored numbers.")
        if not count:
            return np.zeros(shape, numbers.dtype)
        steps = [s * numbers.itemsize for s in self.strides]
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], shape, steps, writeable=False)
        return np.array(view)


class _Reader:
    """One saved object: its storages by key, and what a file may ask for."""

    def __init__(self):
        self.storages = {}
        self.unread = {}  # key of a storage of numbers that NumPy lacks -> its kind
        self.allowed = {
            **numpy_pickle.ALLOWED,
            "collections.OrderedDict": lambda *items: dict(*items),
            "collections.defaultdict": lambda *_: {},
            "argparse.Namespace": unpickle.Record,
            "torch.Size": tuple,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            "torch._utils._rebuild_parameter_with_state": self._parameter,
            "torch._tensor._rebuild_from_type_v2": self._of_type,
            **{f"torch.{name}": None for name in STORAGES},
        }

    def storage(self, tag, kind, key, location, count, view=None):
        name = str(kind).rpartition(".")[2]
        if tag != "storage" or not name.endswith("Storage") or view is not None or not isinstance(count, int):
            raise Mistake(f"Data outside the object are storages. Received {tag!r} of {kind!r}.")
        if name not in STORAGES:
            self.unread[str(key)] = name
            return unpickle.Opaque(f"torch.{name}")
        return self.storages.setdefault(str(key), _Storage(name, str(key), count))

    def _tensor(self, storage, offset, shape, strides, *_):
        if isinstance(storage, unpickle.Opaque):
            return storage
        if not isinstance(storage, _Storage):
            raise Mistake("A tensor needs a storage. Received none.")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))

    def _parameter(self, tensor, *_):
        return tensor

    def _of_type(self, function, _, arguments, *__):
        """A tensor of a subclass as the tensor that it is."""
        if function in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return self._tensor(*arguments)
        return unpickle.Opaque("torch._tensor._rebuild_from_type_v2")

    def load(self, stream):
        tree = unpickle.load(stream, self.allowed, self.storage)
        if isinstance(tree, unpickle.Opaque):
            raise Mistake(
                "a checkpoint must be tensors, numbers, texts or containers. "
                f"Received an object that asks for {tree.name}."
            )
        return tree


def _resolved(tree, done=None):
    """The same tree with arrays in place of tensors.

    An object referenced twice is resolved once, or a small file could fill the memory.
    """
    done = {} if done is None else done
    if id(tree) not in done:
        if isinstance(tree, _Tensor):
            done[id(tree)] = tree.array()
        elif isinstance(tree, numpy_pickle.Array):
            done[id(tree)] = numpy_pickle.bare(tree)
        elif isinstance(tree, dict):
            done[id(tree)] = {_key(key): _resolved(value, done) for key, value in tree.items()}
        elif isinstance(tree, (list, tuple)):
            done[id(tree)] = type(tree)(_resolved(value, done) for value in tree)
        else:
            return tree
    return done[id(tree)]


def _key(key):
    if isinstance(key, (str, bytes, int, float, bool, tuple, frozenset, type(None), unpickle.Opaque)):
        return key
    raise Mistake(f"Keys are texts or numbers. Received {type(key).__name__}.")


def _read_zip(file):
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        (root, *more) = [name[: -len("data.pkl")] for name in members if name.endswith("/data.pkl")] or [None]
        if root is None or more:
            raise ValueError(
                f"It is a zip archive without one data.pkl, but with {', '.join(list(members)[:4]) or 'nothing'}."
            )
        if f"{root}constants.pkl" in members:
            raise ValueError("It is a TorchScript archive, a program. Save the model's state_dict() instead.")
        packed = [name for name, info in members.items() if info.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise ValueError(f"torch.save does not compress, but {packed[0]} is compressed.")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("It was written on a big-endian machine.")
        reader = _Reader()
        tree = reader.load(io.BytesIO(archive.read(f"{root}data.pkl")))
        for key, storage in reader.storages.items():
            if f"{root}data/{key}" not in members:
                raise ValueError(f"Storage {key!r} is missing.")
            storage.fill(archive.read(f"{root}data/{key}"))
        return _resolved(tree)


def _read_legacy(data):
    plain, reader = _Reader(), _Reader()
    magic, version, info = (plain.load(data) for _ in range(3))
    if (magic, version) != (_MAGIC, 1001) or not isinstance(info, dict) or not info.get("little_endian", True):
        raise ValueError(f"It is of an unknown version, {version!r}, or of a big-endian machine.")
    tree = reader.load(data)
    keys = plain.load(data)
    for key in keys:
        if str(key) in reader.unread:
            raise ValueError(f"It has numbers of the kind {reader.unread[str(key)]}, which cannot be passed over.")
        if str(key) not in reader.storages:
            raise ValueError(f"Storage {key!r} belongs to no tensor.")
        storage = reader.storages[str(key)]
        count = int.from_bytes(data.read(8), "little", signed=True)
        size = np.dtype(STORAGES[storage.kind]).itemsize * storage.count
        left = len(data) - data.tell()
        if count != storage.count or left < size:
            raise ValueError(
                f"Storage {key!r} of {storage.count} numbers is cut off: {max(left, 0)} of {size} bytes are there."
            )
        storage.fill(data.read(size))
    return _resolved(tree)


def _foreign(start, size):
    if not size:
        return "It is empty."
    kind = next((what for magic, what in _OTHERS.items() if start.startswith(magic)), None)
    if kind is None and start.isascii() and start.decode("ascii").isprintable():
        kind = f"text that begins {start.decode('ascii')!r}"
    return f"It is {kind or f'something else that begins with the bytes {start[:8].hex()}'}."


def _sentence(error):
    text = str(error) or type(error).__name__
    if isinstance(error, zipfile.BadZipFile):
        cause = textwrap.shorten(repr(text)[1:-1], 200)  # zipfile puts as many bytes into it as the damaged name claims
        return f"It is a damaged or incomplete zip archive ({cause})."
    if isinstance(error, RecursionError):
        return "It is nested too deep."
    return text[0].upper() + text[1:]


class _Pickled:
    """A tree as protocol 2 of pickle, in PyTorch's manner; arrays are put aside."""

    def __init__(self, legacy):
        self.legacy, self.arrays = legacy, []

    def document(self, tree):
        return b"\x80\x02" + self._of(tree) + b"."

    def _of(self, tree):
        if tree is None or isinstance(tree, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[tree]
        if isinstance(tree, (np.ndarray, np.generic)):
            return self._tensor(np.asarray(tree))
        if isinstance(tree, int):
            data = tree.to_bytes(tree.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        if isinstance(tree, float):
            return b"G" + np.array(tree, ">f8").tobytes()
        if isinstance(tree, str):
            data = tree.encode()
            return b"X" + len(data).to_bytes(4, "little") + data
        if isinstance(tree, dict):
            return b"}(" + b"".join(self._of(key) + self._of(value) for key, value in tree.items()) + b"u"
        if isinstance(tree, list):
            return b"](" + b"".join(map(self._of, tree)) + b"e"
        if isinstance(tree, tuple):
            return b"(" + b"".join(map(self._of, tree)) + b"t"
        raise TypeError(f"a tree holds containers, numbers, texts and arrays. Received {type(tree).__name__}.")

    def _tensor(self, array):
        kind = next((name for name, dtype in STORAGES.items() if np.dtype(dtype) == array.dtype), None)
        if kind is None or kind == "BFloat16Storage":
            raise TypeError(f"an array must have numbers that PyTorch has. Received {array.dtype}.")
        key = str(len(self.arrays))
        self.arrays.append(np.ascontiguousarray(array))
        strides = tuple(stride // array.itemsize for stride in np.empty(array.shape, array.dtype).strides)
        storage = ("storage", _Global("torch", kind), key, "cpu", array.size, *([None] if self.legacy else []))
        reference = (
            b"(" + b"".join(part.text if isinstance(part, _Global) else self._of(part) for part in storage) + b"tQ"
        )
        hooks = _Global("collections", "OrderedDict").text + b")R"
        rest = self._of(0) + self._of(array.shape) + self._of(strides) + b"\x89" + hooks
        return _Global("torch._utils", "_rebuild_tensor_v2").text + b"(" + reference + rest + b"tR"


@dataclasses.dataclass
class _Global:
    module: str
    name: str

    @property
    def text(self):
        return f"c{self.module}\n{self.name}\n".encode()
