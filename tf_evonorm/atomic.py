"""Files and folders that are written completely or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import random
import re
import time
from collections.abc import Iterator

import tensorflow as tf

_ATTEMPTS = 10  # to put the new one in place while other processes do the same
_ABANDONED = 86400  # seconds after which what another machine began to write is removed
_count = itertools.count()


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[str]:
    """Gives a temporary name to write a file or a folder under, and moves what was written to `path` at the end.

    After an error `path` is as it was before. After a kill at any moment it is the old or the new one; where the kill
    came between the two renames that replace a folder, the old one lies beside it as `PATH.*.replaced`, and `recover`,
    which the next call does first, brings it back. Several processes may write the same path: the last one stays.

    Args:
      path: local or remote; a file or folder of that name is replaced.

    Yields:
      The name to write under, which begins with `path` and ends with ".partial".
    """
    path = os.fspath(path).rstrip("/")
    recover(path)
    owner = f"{path}.{_machine()}-{os.getpid()}-{next(_count)}"
    partial, replaced = f"{owner}.partial", f"{owner}.replaced"
    try:
        yield partial
        _install(partial, path, replaced)
    finally:
        _remove(partial)


def recover(path: str | os.PathLike) -> None:
    """Brings back what a killed process had put aside, and removes what one had only begun.

    Args:
      path: what was to be written with `atomic_path`.
    """
    path = os.fspath(path).rstrip("/")
    _remove(f"{path}.partial")  # the name of version 0.1
    for leftover in _leftovers(path, ".replaced"):
        if not tf.io.gfile.exists(path):
            with contextlib.suppress(tf.errors.OpError):
                tf.io.gfile.rename(leftover, path)
        _remove(leftover)
    for leftover in _leftovers(path, ".partial"):
        if _is_abandoned(path, leftover):
            _remove(leftover)


def _install(partial, path, replaced):
    """Puts `partial` at `path`. A folder cannot be replaced in one step, so the old one is renamed first."""
    for attempt in range(_ATTEMPTS):
        folders = tf.io.gfile.isdir(path) or tf.io.gfile.isdir(partial)
        try:
            if folders and tf.io.gfile.exists(path):
                with contextlib.suppress(tf.errors.NotFoundError):
                    tf.io.gfile.rename(path, replaced)
            tf.io.gfile.rename(partial, path, overwrite=not tf.io.gfile.isdir(partial))
            break
        except tf.errors.OpError:  # another process was between the two
            if attempt == _ATTEMPTS - 1:
                if not tf.io.gfile.exists(path) and tf.io.gfile.exists(replaced):
                    tf.io.gfile.rename(replaced, path)
                raise
            _remove(replaced)
            _pause(attempt)
    _remove(replaced)


def _leftovers(path, ending):
    folder, name = os.path.split(path)
    try:
        found = sorted(entry.rstrip("/") for entry in tf.io.gfile.listdir(folder or "."))
    except tf.errors.OpError:
        return []
    mine = re.compile(rf"{re.escape(name)}\.[^.]+-\d+-\d+{re.escape(ending)}")
    return [os.path.join(folder, entry) for entry in found if mine.fullmatch(entry)]


def _machine():
    return platform.node().replace(".", "_")


def _is_abandoned(path, leftover):
    """Whether no process can still be writing this."""
    machine, process, _ = leftover[len(path) + 1 : -len(".partial")].rsplit("-", 2)
    if machine == _machine() and os.name == "posix":  # on Windows `os.kill` ends what it is asked about
        return not _is_running(int(process))
    try:
        return time.time() - tf.io.gfile.stat(leftover).mtime_nsec / 1e9 > _ABANDONED
    except tf.errors.OpError:
        return False


def _is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(path):
    """Removes a file or folder that may be there, and may be removed by another process at the same time."""
    for attempt in range(_ATTEMPTS):
        try:
            if tf.io.gfile.isdir(path):
                tf.io.gfile.rmtree(path)
            elif tf.io.gfile.exists(path):
                tf.io.gfile.remove(path)
            return
        except tf.errors.OpError:
            if attempt == _ATTEMPTS - 1:
                raise
            _pause(attempt)


def _pause(attempt):
    """Waits longer after each attempt, and by chance, so that processes in step fall out of step."""
    time.sleep(random.uniform(0, 0.001 * 2**attempt))  # seconds; about half a second after ten attempts
