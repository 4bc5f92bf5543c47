"""What lies beside a set of records: its classes, its files, and whether two sets belong together."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Optional, Union

import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_pixpro.data.record_index import record_files
from tf_pixpro.transfer.records.annotations import AnnotatedImage, Category, Problems
from tf_pixpro.transfer.records.image_files import read


def check_name(name: str) -> None:
    """Refuses names by which the files of one set would match the pattern or take the place of another's.

    Raises:
      Mistake: if the name is not of letters, digits, _ and ., or ends in _annotations.
    """
    if not re.fullmatch(r"\w[\w.]*", name) or name.endswith("_annotations"):
        raise Mistake(
            "the name of a set is of letters, digits, _ and ., without - (train-* would read train-small, too) and "
            "not NAME_annotations. "
            f"Received {name!r}. Pass {free_name(name)!r}."
        )


def free_name(name: str) -> str:
    """A name that `check_name` accepts, made of any text."""
    name = re.sub(r"[^\w.]+", "_", name).strip("_.") or "records"
    return f"{name}_set" if name.endswith("_annotations") else name


def shard_files(folder: str, name: str) -> list[str]:
    """Names of the files of a set in a folder, whatever their count.

    Raises:
      Mistake: if files of another set, written by an earlier version, match NAME-*.tfrecord as well.
    """
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    own = [file for file in names if re.fullmatch(re.escape(name) + r"-\d{5,}-of-\d{5,}\.tfrecord", file)]
    strange = [file for file in names if file.startswith(f"{name}-") and file.endswith(".tfrecord") and file not in own]
    if strange:
        raise Mistake(
            f"{name}-*.tfrecord must match one set. Received {folder!r} with {strange[0]} of another one. Move it to "
            "another folder."
        )
    return sorted(own)


def summary_of(input_path: str) -> Optional[dict]:
    """What `write_records` left as NAME.json beside records/bccd/NAME-*.tfrecord, or None."""
    path = re.sub(r"-[*?\[\d][^/]*$", "", str(input_path)) + ".json"
    try:
        return json.loads(read(path))
    except (tf.errors.OpError, ValueError):
        return None


def check_sets(train: Union[str, Sequence[str]], validation: Union[str, Sequence[str]]) -> None:
    """Checks that sets of records, named by their patterns, are whole and number their classes alike.

    Sets without NAME.json, which were not written by `write_records`, are not checked.

    Args:
      train, validation: patterns such as records/bccd/train-*.tfrecord, a list of them or several with commas.

    Raises:
      Mistake: if a set holds no images or other files than its NAME.json lists, or a class name has two numbers.
    """
    labels: dict = {}
    for pattern in dict.fromkeys((*_patterns(train), *_patterns(validation))):
        found = summary_of(pattern)
        if found is None or not record_files(pattern):
            continue
        _check_files(pattern, found)
        own = {str(name): int(label) for label, name in found["categories"].items()}
        for other, known in labels.items():
            changed = _renumbered(known, own)
            if changed:
                raise Mistake(
                    f"classes must have the same numbers in both sets. Received {changed[0]!r} as {known[changed[0]]} "
                    f"in {other} and {own[changed[0]]} in {pattern}. Prepare one of them again into the other's folder,"
                    " or with --names."
                )
        labels[pattern] = own


def with_literal_folders(given: Union[str, Sequence[str]]) -> Union[str, Sequence[str]]:
    """Patterns for Model Garden, which takes brackets and stars in the name of a folder that is there for wildcards."""
    escaped = [_with_literal_folder(pattern) for pattern in _patterns(given)]
    return ",".join(escaped) if isinstance(given, str) else escaped


def _with_literal_folder(pattern):
    folder, name = os.path.split(pattern)
    if not tf.io.gfile.isdir(folder or "."):
        return pattern
    return os.path.join(re.sub(r"([\[*?])", r"[\1]", folder), name)


def _patterns(given):
    return [pattern for pattern in (given.split(",") if isinstance(given, str) else list(given or ())) if pattern]


def _check_files(pattern, summary):
    if not summary.get("images", summary.get("pictures")):
        raise Mistake(f"records must hold images. Received {pattern}, which holds none. Prepare them again.")
    files = {os.path.basename(path) for path in record_files(pattern)}
    listed = set(summary.get("shards", files))
    if files - listed or (files != listed and pattern.endswith(("-*", "-*.tfrecord"))):
        raise Mistake(
            f"records must be those of one preparation. Received {pattern}, whose files are not those that its JSON "
            "file lists. Prepare them again."
        )


def align_categories(
    images: Sequence[AnnotatedImage], categories: Sequence[Category], folder: str, name: str, problems: Problems
) -> tuple[list[AnnotatedImage], list[Category]]:
    """Gives classes the numbers that sets of the same classes have in a folder.

    Args:
      images, categories: of a new set.
      folder: of the records.
      name: of the new set.
      problems: gets a note of what was renumbered.

    Returns:
      (images, categories), those given where nothing differs.

    Raises:
      Mistake: if a number is then that of two classes.
    """
    wanted: dict = {}
    for labels in _beside(folder, name, categories).values():
        wanted.update(labels)
    new = {category.label: wanted.get(category.name, category.label) for category in categories}
    if all(label == given for label, given in new.items()):
        return list(images), list(categories)
    if len(set(new.values())) < len(new):
        raise Mistake(
            f"a class must have the number it has in the other sets of {folder!r}. Received {_spelled(categories)}, "
            "and these have "
            f"{wanted}. Pass --names with all classes, or another --output."
        )
    named = [Category(new[category.label], category.name) for category in categories]
    problems.note(f"{folder} has these classes already; they get the same numbers: {_spelled(named)}.")
    renumbered = [
        dataclasses.replace(i, objects=tuple(dataclasses.replace(o, label=new[o.label]) for o in i.objects))
        for i in images
    ]
    return renumbered, sorted(named, key=lambda category: category.label)


def check_categories(categories: Sequence[Category], folder: str, name: str) -> None:
    """Refuses classes that have other numbers in another set of the same classes in a folder.

    Raises:
      Mistake: naming class and set.
    """
    own = {category.name: category.label for category in categories}
    for other, labels in _beside(folder, name, categories).items():
        changed = _renumbered(own, labels)
        if changed:
            raise Mistake(
                f"a class must have the number it has in the other sets of {folder!r}. Received {changed[0]!r} as "
                f"{own[changed[0]]}, and "
                f"{labels[changed[0]]} in {other}. Pass --names in the same order, or another --output."
            )


def _beside(folder, name, categories):
    """File name -> {class name: number} of the other sets whose classes are these, or some of these, or more."""
    own = {category.name for category in categories}
    found = {}
    for file in sorted(tf.io.gfile.listdir(folder)) if tf.io.gfile.isdir(folder) else ():
        if not file.endswith(".json") or file.endswith("_annotations.json") or file in (f"{name}.json", ""):
            continue
        try:
            named = json.loads(read(os.path.join(folder, file)))["categories"]
            labels = {str(value): int(label) for label, value in named.items()}
        except (tf.errors.OpError, ValueError, KeyError, TypeError, AttributeError):
            continue
        masks = [0 in numbers for numbers in (labels.values(), [c.label for c in categories])]
        if labels and own and masks[0] == masks[1] and (own <= set(labels) or set(labels) <= own):
            found[file] = labels
    return found


def _renumbered(first: Mapping[str, int], second: Mapping[str, int]) -> list[str]:
    return sorted(name for name, label in first.items() if second.get(name, label) != label)


def _spelled(categories):
    return ", ".join(f"{category.label} {category.name}" for category in categories[:20])
