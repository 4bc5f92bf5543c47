"""Sources of encoded images: the one that a path names, and those of image files and of synthetic scenes."""

from __future__ import annotations

import functools
import io
import os
import pathlib
import zipfile
import zlib
from typing import Optional

import numpy as np
import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_pixpro.data.interface import Source
from tf_pixpro.data.listing import SAMPLED, choose, endings, is_remote, sample, walk
from tf_pixpro.data.record_index import record_files
from tf_pixpro.data.record_sources import tfds, tfrecords
from tf_pixpro.views.decode import MAX_PIXELS, read_header

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_OTHER_FILES = (".txt", ".json", ".csv", ".xml", ".tar", ".gz.tar", ".tgz", ".rar", ".7z", *endings())
_SCENE_BYTES = 2**28


def source(
    path: str,
    split: Optional[str] = None,
    num_examples: Optional[int] = None,
    min_side: int = 32,
    index: Optional[str] = None,
    num_classes: Optional[int] = None,
    data_dir: Optional[str] = None,
    seed: Optional[int] = None,
    size: Optional[tuple[int, int]] = None,
) -> Source:
    """Makes a source out of a path or name.

    Args:
      path: a folder or a .zip of images (see `tf_pixpro.data.listing`; the folder that holds a file is its class);
        TFRecords, by name or pattern, plain or compressed, with Model Garden's keys `image/encoded`,
        `image/class/label`; 'tfds:NAME'; or 'scenes'. Folders and files may lie in any file system that TensorFlow
        reads, such as gs://.
      split: of a folder or zip: only files below the folder of this name at the top of the source, such as 'train', or
        below a path such as 'images/train'; of TFDS: its split (default 'train').
      num_examples: number of compressed records, which otherwise are counted once; of scenes: how many (default
        2000).
      min_side: least height and width in pixels; a sample of the files is looked at.
      index: folder of the index of TFRecords (see `tf_pixpro.data.record_index`), if not the folder of the records.
      num_classes: of TFRecords, whose labels are below it; otherwise one more than the largest label of 1,000 records,
        which may miss classes where there are hundreds.
      data_dir: of TFDS, the folder of prepared data sets if not TFDS' own.
      seed, size: of scenes, see `scenes`.

    Raises:
      FileNotFoundError: if there is nothing at the path.
      Mistake: if it holds no images, wrong keys, files that are no images, images that are too small, or an option
        belongs to another kind of source.
    """
    path = os.fspath(path)
    if path == "scenes":
        _refuse(path, data_dir=data_dir, index=index)
        return scenes(num_examples or 2000, seed or 0, size or (128, 128))
    if path.startswith("tfds:"):
        _refuse(path, seed=seed, size=size)
        return tfds(path.removeprefix("tfds:"), split or "train", data_dir, index)
    _refuse(path, data_dir=data_dir, seed=seed, size=size)
    _check_file_system(path)
    if os.path.isdir(path) or (is_remote(path) and tf.io.gfile.isdir(path)):
        _refuse(path, index=index)
        return folder(path, split, min_side)
    if path.lower().endswith(".zip") or (os.path.isfile(path) and zipfile.is_zipfile(path)):
        _refuse(path, index=index)
        return zipped(path, split, min_side)
    if path.lower().endswith(_OTHER_FILES) and os.path.exists(path):
        raise Mistake(f"images come from a folder, a .zip, TFRecords or tfds:NAME. Received the file {path!r}.")
    if record_files(path):
        return tfrecords(path, num_examples, index, num_classes)
    raise FileNotFoundError(
        f"images come from a folder, a .zip, TFRecords or tfds:NAME. Received {path!r}, where there is nothing."
    )


def _refuse(path, **options):
    given = sorted(name for name, value in options.items() if value is not None)
    if given:
        raise Mistake(
            "index belongs to TFRecords and tfds:NAME, data_dir to tfds:NAME, seed and size to scenes. Received "
            f"{', '.join(given)} with path={path!r}. Leave them out, and the variant `smoke` of a config, which draws "
            "its own images."
        )


def _check_file_system(path):
    try:
        if is_remote(path):
            tf.io.gfile.stat(path)
    except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError):
        pass  # a pattern; or nothing, which is reported where it is looked for
    except tf.errors.OpError as error:
        raise Mistake(
            f"remote files need a file system that TensorFlow reaches. Received {path!r}: {error.message}. "
            "Check its name, the network and your permissions."
        ) from error


def folder(path: str, split: Optional[str] = None, min_side: int = 32) -> Source:
    """Images in a folder and its sub-folders, links followed; see `source`."""
    names, labels, classes = choose(path, list(walk(path)), split)
    files = [os.path.join(path, name) for name in names]
    unreadable = _check(path, names, lambda name: _content(os.path.join(path, name)), min_side)
    # As bytes: a name need not be UTF-8.
    table, numbers = tf.constant([os.fsencode(file) for file in files]), tf.constant(labels, tf.int64)

    def read(index):
        file = tf.gather(table, index)
        return {"bytes": tf.io.read_file(file), "label": tf.gather(numbers, index), "name": file}

    return Source(path, len(names), classes, read=read, unreadable=unreadable)


def _content(file):
    if is_remote(file):
        with tf.io.gfile.GFile(file, "rb") as opened:
            return opened.read()
    return pathlib.Path(file).read_bytes()


def zipped(path: str, split: Optional[str] = None, min_side: int = 32) -> Source:
    """Images in a zip, read where they lie; see `source`."""
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"a zip of images is needed. Received {path!r}, where there is nothing.")
    try:
        # Opened once: it may be read from many threads, and its directory is long.
        archive = zipfile.ZipFile(tf.io.gfile.GFile(path, "rb") if is_remote(path) else path)
    except zipfile.BadZipFile as error:
        raise Mistake(f"a zip of images is needed. Received {path!r}: {error}. Create it again.") from error
    members = {_member(info.filename): info for info in archive.infolist()}
    names = sorted(name for name, info in members.items() if not info.filename.endswith(("/", "\\")))
    names, labels, classes = choose(path, names, split)
    _check_members(path, [members[name] for name in names])
    table, numbers = tf.constant(names), tf.constant(labels, tf.int64)

    def content(name):
        try:
            return archive.read(members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):  # the last: flags that nobody has set
            return b""  # damaged: counted as an image that cannot be decoded

    unreadable = _check(path, names, content, min_side)

    def read(index):
        data = tf.numpy_function(lambda i: content(names[int(i)]), [index], tf.string)
        return {"bytes": tf.ensure_shape(data, []), "label": tf.gather(numbers, index), "name": tf.gather(table, index)}

    return Source(path, len(names), classes, read=read, unreadable=unreadable)


def _member(name):
    """A member's name with forward slashes and no empty, . or .. folder, which some programs write against the rule."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def _check_members(path, members):
    """Refuses what Python's zipfile cannot read."""
    for info in members:
        if info.flag_bits & 1:
            raise Mistake(
                f"a zip must not be encrypted. Received {path!r}, whose {info.filename} needs a password. "
                "Unpack it into a folder."
            )
        if info.compress_type not in _METHODS:
            name = zipfile.compressor_names.get(info.compress_type, f"method {info.compress_type}")
            raise Mistake(
                f"a zip must be stored, deflated or packed by bzip2 or lzma. Received {path!r}, whose "
                f"{info.filename} is packed by {name}. Unpack it into a folder, or pack it again."
            )


def scenes(num_examples: int = 2000, seed: int = 0, size: tuple[int, int] = (128, 128)) -> Source:
    """Synthetic scenes, drawn when first asked for; see `tf_pixpro.data.scenes`.

    The label is the class of the largest object.
    """
    from PIL import Image

    from tf_pixpro.data.scenes import CLASS_NAMES, scene

    @functools.lru_cache(maxsize=max(1, _SCENE_BYTES // (3 * size[0] * size[1])))
    def drawn(index):
        one, buffer = scene(index, seed, tuple(size)), io.BytesIO()
        Image.fromarray(one.image).save(buffer, "BMP")
        return buffer.getvalue(), np.int64(one.main_label - 1)

    def read(index):
        data, label = tf.numpy_function(lambda i: drawn(int(i)), [index], [tf.string, tf.int64])
        name = tf.strings.format("scene {}", index)
        return {"bytes": tf.ensure_shape(data, []), "label": tf.ensure_shape(label, []), "name": name}

    return Source("scenes", num_examples, CLASS_NAMES, read=read)


def _check(path, names, read, min_side):
    """Reads the headers of up to a thousand files, evenly spread; returns the names of those that are no images."""
    unreadable, huge = [], []
    looked = sample(names, SAMPLED)
    for name in looked:
        try:
            header = read_header(read(name))
        except (Mistake, OSError, tf.errors.OpError):
            unreadable.append(name)
            continue
        if min(header.height, header.width) < min_side:
            raise Mistake(
                f"images must have sides of at least {min_side} pixels. Received {name} in {path!r} with "
                f"{header.width}x{header.height}. Remove it or lower min_side."
            )
        if header.height * header.width > MAX_PIXELS:
            huge.append(f"{name} ({header.width}x{header.height})")
    if len(unreadable) == len(looked):
        raise Mistake(f"images are needed. Received {path!r}, where {', '.join(unreadable[:3])} and others are none.")
    if unreadable:
        tf.get_logger().warning(
            "%d of %d files looked at are no images, such as %s", len(unreadable), len(looked), unreadable[0]
        )
    if huge:
        tf.get_logger().warning(
            "%d of %d images looked at have more than %d million pixels and take 3 bytes of memory for each "
            "while they are "
            "decoded, such as %s. Make them smaller if memory is short.",
            len(huge), len(looked), MAX_PIXELS // 10**6, huge[0],
        )  # fmt: skip
    return tuple(unreadable)
