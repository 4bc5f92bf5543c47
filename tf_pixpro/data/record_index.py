"""Random access to TFRecords: an index of where each record lies, found from record headers and kept in a file.

A TFRecord file is a row of [length, 8 bytes][CRC of the length, 4 bytes][data, `length` bytes][CRC of the data, 4
bytes]. The index holds the offset of every record, so that record i is read alone. Compressed files have no offsets:
their records are counted, and come in a row.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import fnmatch
import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

import numpy as np
import tensorflow as tf

from tf_evonorm.atomic import atomic_path
from tf_evonorm.mistakes import Mistake
from tf_pixpro.data.listing import is_remote

_HEADER, _FRAME = 12, 16  # bytes before the data; bytes around it
_WINDOW = 65536  # bytes read at once where records are small
_SMALL = 8192  # bytes; larger records are skipped over, header by header
_CHECKED_AT_ONCE = 4096  # headers
_THREADS = 16
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """Where the records of a set of files lie.

    Attributes:
      files: paths, in the order of the records.
      compression: '', 'GZIP' or 'ZLIB'.
      sizes, times: [files] int64, bytes and nanoseconds of the last change, when the file was read.
      counts: [files] int64, records of each file.
      offsets: one [records of the file + 1] int64 for each file: where each record begins, and the file's size. Empty
        for compressed files.
    """

    files: tuple[str, ...]
    compression: str
    sizes: np.ndarray
    times: np.ndarray
    counts: np.ndarray
    offsets: tuple[np.ndarray, ...]

    @property
    def num_examples(self) -> int:
        """Number of records."""
        return int(self.counts.sum())

    def part(self, pieces: Sequence[tuple[str, int, int]]) -> RecordIndex:
        """Returns the index of some records of some files.

        Args:
          pieces: (file, number of its records left out first, number of records) in the order wanted.
        """
        position = {file: number for number, file in enumerate(self.files)}
        chosen = [position[file] for file, _, _ in pieces]
        offsets = [self.offsets[i][skip : skip + take + 1] for i, (_, skip, take) in zip(chosen, pieces)]
        return dataclasses.replace(
            self,
            files=tuple(file for file, _, _ in pieces),
            sizes=self.sizes[chosen],
            times=self.times[chosen],
            counts=np.array([max(0, len(some) - 1) for some in offsets], np.int64),
            offsets=tuple(some if len(some) else np.zeros(1, np.int64) for some in offsets),
        )

    def reader(self) -> Callable:
        """Returns the function int64 number -> (record, name), for use in tf.data; CRCs are checked as it reads.

        It raises tf.errors.DataLossError while running where the record is damaged.
        """
        files = tf.constant(self.files)
        ends = tf.constant(np.cumsum(self.counts))
        offsets = tf.constant(np.concatenate(self.offsets))

        @tf.autograph.experimental.do_not_convert
        def read(number):
            number = tf.cast(number, tf.int64)
            file = tf.searchsorted(ends, number[tf.newaxis], side="right")[0]
            position = number + tf.cast(file, tf.int64)  # each file before it has one offset more than records
            begin, end = tf.gather(offsets, position), tf.gather(offsets, position + 1)
            path = tf.gather(files, file)
            one = tf.raw_ops.TFRecordDatasetV2(
                filenames=path[tf.newaxis], compression_type="", buffer_size=end - begin, byte_offsets=begin[tf.newaxis]
            )
            one = tf.data.experimental.from_variant(one, tf.TensorSpec([], tf.string))
            return one.take(1).get_single_element(), tf.strings.join([path, ", byte ", tf.strings.as_string(begin)])

        return read


def record_files(pattern: str) -> list[str]:
    """Returns the files of a name or pattern (`*`, `?`, `[...]` in the last part of it), sorted.

    Brackets in a folder's name stand for themselves. Hidden files count only where the pattern begins with a dot.
    """
    if tf.io.gfile.exists(pattern) and not tf.io.gfile.isdir(pattern):
        return [pattern]
    directory, name = os.path.split(pattern)
    if is_remote(pattern):
        found = tf.io.gfile.glob(pattern)
    elif os.path.isdir(directory or "."):
        found = [os.path.join(directory, entry.name) for entry in os.scandir(directory or ".") if entry.is_file()]
        found = [path for path in found if fnmatch.fnmatchcase(os.path.basename(path), name)]
    else:
        found = [path for path in tf.io.gfile.glob(pattern) if os.path.isfile(path)]
    return sorted(path for path in found if name.startswith(".") or not os.path.basename(path).startswith("."))


def record_index(
    files: Sequence[str], compression: str = "", pattern: Optional[str] = None, folder: Optional[str] = None
) -> RecordIndex:
    """Opens the index of a set of files, or makes it; files that are as they were are not read.

    The index is kept as a hidden file beside the records, and in memory alone where that folder cannot be written.

    Args:
      files: paths, local or of any file system of TensorFlow, sorted.
      compression: '', 'GZIP' or 'ZLIB', of all files.
      pattern: what the files were found by, by which the index is known again; default: their names.
      folder: where the index is kept, if not beside the records.

    Raises:
      Mistake: a file is torn or damaged, or one that the kept index has is missing.
    """
    root, names = _relative(files)
    path = os.path.join(folder or root, _name(root if folder else "", pattern, names, compression))
    kept = _load(path)
    missing = sorted(kept.keys() - set(names))
    if missing:
        raise Mistake(
            f"all files of a kept index must be there. Received {pattern or root!r} without {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}. Bring them back, or remove {path}."
        )
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        sizes, times = np.array(list(threads.map(_size_and_time, files)), np.int64).reshape(-1, 2).T
        unchanged = [kept.get(name, ())[:2] == (size, time) for name, size, time in zip(names, sizes, times)]
        fresh = [i for i, same in enumerate(unchanged) if not same]
        found = dict(zip(fresh, threads.map(lambda i: _read(files[i], int(sizes[i]), compression), fresh)))
    _report_changes(pattern or root, [names[i] for i in fresh if names[i] in kept], len(names))
    entries = [found[i] if i in found else kept[name][2:] for i, name in enumerate(names)]
    counts = np.array([count for count, _ in entries], np.int64)
    index = RecordIndex(tuple(files), compression, sizes, times, counts, tuple(offsets for _, offsets in entries))
    if fresh:
        _save(path, names, index)
    return index


def _relative(files):
    """(folder that all files share, names of the files below it)."""
    folders = [os.path.join(os.path.dirname(file), "") for file in files]
    root = os.path.dirname(os.path.commonprefix(folders))  # noqa: RUF071  (commonpath does not take URLs)
    return root, [file[len(root) :].lstrip("/") for file in files]


def _name(root, pattern, names, compression):
    known = os.path.basename(pattern) if pattern else "\n".join(names)
    digest = hashlib.sha256(f"{compression}\n{root}\n{known}".encode(errors="surrogateescape")).hexdigest()[:16]
    return f".records-{digest}.index.npz"


def _report_changes(shown, changed, number):
    if changed:
        tf.get_logger().warning(
            "%s: %d of %d files have changed since they were indexed, such as %s, and are indexed again",
            shown, len(changed), number, changed[0],
        )  # fmt: skip


def _size_and_time(file):
    found = tf.io.gfile.stat(file)
    return found.length, found.mtime_nsec


def _load(path):
    """{name: (size, time, count, offsets)} of a kept index; nothing where there is none, or a damaged one."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file, np.load(io.BytesIO(file.read())) as kept:
            if kept["version"] != _VERSION:
                return {}
            names, counts, offsets = str(kept["names"]).split("\n"), kept["counts"], kept["offsets"]
            pieces = np.split(offsets, np.cumsum(counts + 1)[:-1]) if len(offsets) else [offsets] * len(names)
            rows = zip(names, kept["sizes"].tolist(), kept["times"].tolist(), counts.tolist(), pieces)
            return {name: tuple(entry) for name, *entry in rows}
    except (tf.errors.OpError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def _save(path, names, index):
    content = io.BytesIO()
    offsets = np.concatenate(index.offsets) if index.offsets else np.zeros(0, np.int64)
    np.savez(
        content, version=_VERSION, names="\n".join(names), sizes=index.sizes, times=index.times, counts=index.counts,
        offsets=offsets,
    )  # fmt: skip
    try:
        with atomic_path(path) as partial, tf.io.gfile.GFile(partial, "wb") as file:
            file.write(content.getvalue())
    except (tf.errors.OpError, OSError):
        tf.get_logger().warning(
            "%s cannot be written: the index of %d records is kept only in memory and is made again at each start. "
            "The option `index` names another folder for it.",
            path, index.num_examples,
        )  # fmt: skip


def _read(file, size, compression):
    """(number of records, offsets) of one file."""
    if compression:
        return _counted(file, compression), np.zeros(0, np.int64)
    with _opened(file, size) as read_at:
        offsets = _offsets(file, size, read_at)
    return len(offsets) - 1, offsets


def _counted(file, compression):
    records = tf.data.TFRecordDataset([file], compression_type=compression)
    try:
        return int(records.reduce(np.int64(0), lambda count, _: count + 1))
    except tf.errors.DataLossError as error:
        raise Mistake(f"TFRecords must be complete. Received {file!r}: {error.message}. Copy them again.") from error


def _offsets(file, size, read_at):
    """[n + 1] offsets of the records of one file, and its size; reads headers, and data only between close ones."""
    offsets, headers, checked = [0], [], 0
    window, base, position = b"", 0, 0
    while position < size:
        if not base <= position <= base + len(window) - _HEADER:
            small = position <= _SMALL * len(headers)
            base, window = position, read_at(position, min(_WINDOW if small else _HEADER, size - position))
        headers.append(window[position - base : position - base + _HEADER])
        if len(headers[-1]) < _HEADER:
            raise _torn(file, len(headers) - 1)
        position += _FRAME + struct.unpack_from("<Q", headers[-1])[0]
        offsets.append(position)
        if position >= size or len(headers) - checked >= _CHECKED_AT_ONCE:
            _check_headers(file, headers, checked)
            checked = len(headers)
    if position > size:
        raise _torn(file, len(headers) - 1)
    return np.array(offsets, np.int64)


def _torn(file, record):
    return Mistake(
        f"TFRecords must be complete. Received {file!r}, which ends within record {record}. Copy them again."
    )


def _check_headers(file, headers, start):
    rows = np.frombuffer(b"".join(headers[start:]), np.dtype([("length", "u1", 8), ("crc", "<u4")]))
    wrong = np.flatnonzero(masked_crc32c(rows["length"]) != rows["crc"])
    if len(wrong):
        raise Mistake(
            f"TFRecords must be complete. Received {file!r}, where the header of record {start + wrong[0]} is damaged. "
            "Copy them again."
        )


def masked_crc32c(rows: np.ndarray) -> np.ndarray:
    """Checksums of rows of bytes as TFRecords have them.

    Args:
      rows: [n, length] uint8.

    Returns:
      [n] uint32.

    Source: the CRC of iSCSI (RFC 3720, Castagnoli's polynomial 0x1EDC6F41), masked as TensorFlow does.
    """
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ (np.uint32(0x82F63B78) * (table & 1))
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in np.asarray(rows).T:
        crc = table[(crc ^ column) & 255] ^ (crc >> 8)
    crc = ~crc
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


@contextlib.contextmanager
def _opened(file: str, size: int) -> Iterator[Callable]:
    """Gives (position, length) -> bytes of a file, reading no more than that."""
    if is_remote(file):
        yield lambda position, length: _read_remote(
            *(tf.constant(value, tf.int64) for value in (position, length, size - position - length)), tf.constant(file)
        ).numpy()
        return
    descriptor = os.open(file, os.O_RDONLY)
    try:
        yield lambda position, length: os.pread(descriptor, length, position)
    finally:
        os.close(descriptor)


@tf.function(autograph=False)
def _read_remote(position, length, rest, file):
    # GFile.seek would read half a megabyte each time.
    piece = tf.data.FixedLengthRecordDataset(
        file[tf.newaxis], length, header_bytes=position, footer_bytes=rest, buffer_size=length
    )
    return piece.get_single_element()
