"""What every source of encoded images offers, whatever carries them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Callable, Optional

import tensorflow as tf

from tf_evonorm.mistakes import Mistake


@dataclasses.dataclass(frozen=True)
class Source:
    """Encoded images with names and, where known, classes.

    An example is {'bytes': string, 'label': int64 (-1 unknown), 'name': string}.

    Attributes:
      name: for messages.
      num_examples: how many there are.
      class_names: empty without labels.
      read: int64 index -> example, where images can be picked; else None.
      stream: (seed or None, files or None, skip) -> dataset of the examples of these files once, without the first
        `skip`, shuffled by the int64 seed, where they only come in a row; else None.
      file_sizes: of a stream, where known: number of examples of each file.
      record_files: of records, where known: name, bytes and a checksum of the positions of its records of each file.
      unreadable: names of files that were found to be no images when the source was made.
    """

    name: str
    num_examples: int
    class_names: tuple[str, ...]
    read: Optional[Callable] = None
    stream: Any = None
    file_sizes: tuple[int, ...] = ()
    record_files: tuple[tuple[str, int, int], ...] = ()
    unreadable: tuple[str, ...] = ()


def with_classes(source: Source, class_names: Sequence[str]) -> Source:
    """The same images with labels that are numbers in `class_names`, so that two sets agree by names.

    Args:
      source: with classes, all of them among `class_names`.
      class_names: of the set that a model learns from.

    Raises:
      Mistake: the source has no classes, or one that `class_names` lacks.
    """
    missing = sorted({*source.class_names} - {*class_names})
    if missing or not source.class_names:
        raise Mistake(
            f"classes must be among {len(class_names)} known ones. Received {source.name} with "
            f"{f'also {missing[:5]}' if missing else 'none'}. Rename or remove its folders."
        )
    if tuple(class_names) == source.class_names:
        return source
    position = {name: number for number, name in enumerate(class_names)}
    numbers = tf.constant([-1] + [position[name] for name in source.class_names], tf.int64)

    def renumbered(example):
        return {**example, "label": tf.gather(numbers, example["label"] + 1)}

    read, stream = source.read, source.stream
    return dataclasses.replace(
        source,
        class_names=tuple(class_names),
        read=read and (lambda index: renumbered(read(index))),
        stream=stream and (lambda *which: stream(*which).map(renumbered)),
    )
