"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[str]:
    """Gives another name to write a file or a folder under, and moves what was written to `path` at the end.

    After an error, or where the process is killed, `path` is as it was before.

    Args:
      path: local or remote; a file or folder of that name is replaced.

    Yields:
      The name to write under: `path` with ".partial".
    """
    path = os.fspath(path).rstrip("/")
    partial = f"{path}.partial"
    _remove(partial)
    try:
        yield partial
        if tf.io.gfile.isdir(path):
            _remove(path)
        tf.io.gfile.rename(partial, path, overwrite=True)
    finally:
        _remove(partial)


def _remove(path):
    if tf.io.gfile.isdir(path):
        tf.io.gfile.rmtree(path)
    elif tf.io.gfile.exists(path):
        tf.io.gfile.remove(path)
