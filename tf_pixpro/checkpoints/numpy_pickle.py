"""NumPy arrays in pickled data, read without NumPy's own functions being looked up by name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_evonorm.mistakes import Mistake
from tf_pixpro.checkpoints import unpickle

_TYPE = re.compile(r"[?]|[biufc]\d{1,2}")  # numbers alone; objects could be anything


class Array(np.ndarray, unpickle.Built):
    """An array whose shape, type and values come after it in the file.

    Attributes:
      opaque: whether it holds texts, objects or other values than numbers; then they are left out.
    """

    opaque = False

    def set_state(self, state: tuple) -> None:
        """Takes (version, shape, type, whether in Fortran's order, bytes).

        Raises:
          ValueError: if it is no such state.
        """
        _, shape, dtype, fortran, values = state
        if isinstance(dtype, unpickle.Opaque):
            self.opaque = True
            return
        if not isinstance(dtype, Type) or not isinstance(values, (bytes, bytearray)):
            raise Mistake("an array must have a type and values. Received one without.")
        self.__setstate__((1, tuple(shape), dtype.dtype, bool(fortran), bytes(values)))


class Type(unpickle.Built):
    """A type of numbers, whose byte order comes after it in the file.

    Args:
      code: such as 'f4'.
    """

    def __init__(self, code: str):
        self.dtype = np.dtype(code)

    def set_state(self, state: tuple) -> None:
        """Takes (version, byte order, ...)."""
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


def _type(code: object, *_: object) -> Type | unpickle.Opaque:
    return Type(code) if isinstance(code, str) and _TYPE.fullmatch(code) else unpickle.Opaque("numpy.dtype")


def _reconstructed(*_: object) -> Array:
    return np.empty([0], np.uint8).view(Array)


def _from_buffer(values: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray | unpickle.Opaque:
    if isinstance(dtype, unpickle.Opaque):
        return unpickle.Opaque("numpy.ndarray")
    if not isinstance(dtype, Type) or not isinstance(values, (bytes, bytearray)):
        raise Mistake("an array must have a type and values. Received one without.")
    return np.frombuffer(bytes(values), dtype.dtype).reshape(tuple(shape), order="F" if order == "F" else "C")


def _scalar(dtype: Any, values: Any = b"") -> object:
    """A NumPy scalar as the number that it holds."""
    if not isinstance(dtype, Type) or not isinstance(values, (bytes, bytearray)):
        return unpickle.Opaque("numpy.scalar")
    return np.frombuffer(bytes(values), dtype.dtype, 1)[0].item()


def _no_bytes() -> bytes:
    """What protocol 2 writes for an empty array; with an argument the call is refused, as it could fill the memory."""
    return b""


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, as protocol 2 writes them."""
    return text.encode("latin1")


# Name in a file -> our function, see `unpickle.load`.
ALLOWED: dict[str, Callable | None] = {
    **{f"numpy.{core}.multiarray._reconstruct": _reconstructed for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    "numpy.dtype": _type,
    "numpy.ndarray": None,
    "_codecs.encode": _encoded,
    **{f"{module}.bytes": _no_bytes for module in ("__builtin__", "builtins")},
}


def read(path: str | os.PathLike) -> Any:
    """Reads a pickle of numbers, texts, containers and NumPy arrays, such as detectron2's model files.

    Args:
      path: of the file.

    Returns:
      What was saved; an object of any other class, and an array of other values than numbers, as an `unpickle.Opaque`
      placeholder.

    Raises:
      FileNotFoundError: if there is no such file.
      Mistake: if the file holds no well-formed pickle.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"a .pkl file is needed. Received {path!r}, where there is none.")
    try:
        with open(path, "rb") as file:
            return plain(unpickle.load(file, {"collections.OrderedDict": dict, **ALLOWED}))
    except (OSError, ValueError, EOFError, RecursionError) as error:
        raise Mistake(f"{path!r} must be a pickle of arrays by name. {error}") from error


def plain(tree: Any) -> Any:
    """The same arrays as `numpy.ndarray`, in dicts, of what `read` or `unpickle.load` with `ALLOWED` gave."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return bare(tree) if isinstance(tree, Array) else tree


def bare(array: Array) -> np.ndarray | unpickle.Opaque:
    """An array as `numpy.ndarray`, or the placeholder of one that does not hold numbers."""
    return unpickle.Opaque("numpy.ndarray") if array.opaque else array.view(np.ndarray)
