"""Sets of records beside each other: class numbers go by names, and mixed or empty sets are refused."""

import json

import pytest
import tensorflow as tf
from annotated import picture_file

from tf_evonorm.mistakes import Mistake
from tf_pixpro.data.record_index import record_files
from tf_pixpro.transfer import records
from tf_pixpro.transfer.records import record_sets


def written(folder, name, labels, problems=None):
    path = picture_file(folder.parent / "in" / "a.png")
    one = records.ObjectAnnotation(next(iter(labels)), (0, 0, 2, 2), 4)
    image = records.AnnotatedImage(str(path), 1, (6, 8), (one,))
    categories = [records.Category(label, text) for label, text in labels.items()]
    problems = problems or records.Problems()
    images, categories = records.align_categories([image], categories, str(folder), name, problems)
    return records.write_records(images, categories, str(folder), name, problems, 1, progress=False)


def test_classes_of_the_same_names_get_the_same_numbers(tmp_path):
    written(tmp_path / "out", "train", {1: "cat", 2: "dog"})
    problems = records.Problems()
    summary = written(tmp_path / "out", "val", {1: "dog", 2: "cat"}, problems)
    assert summary["categories"] == {1: "cat", 2: "dog"} and "same numbers" in problems.notes[0]
    annotations = json.loads((tmp_path / "out" / "val_annotations.json").read_text())
    assert annotations["annotations"][0]["category_id"] == 2  # a dog
    records.check_sets(str(tmp_path / "out" / "train-*.tfrecord"), str(tmp_path / "out" / "val-*.tfrecord"))


def test_sets_of_other_classes_keep_their_numbers(tmp_path):
    written(tmp_path / "out", "train", {1: "cat", 2: "dog"})
    assert written(tmp_path / "out", "cars", {1: "cat", 3: "bus"})["categories"] == {1: "cat", 3: "bus"}
    assert written(tmp_path / "out", "other", {1: "dog", 3: "bus"})["categories"] == {1: "dog", 3: "bus"}


def test_numbers_that_cannot_agree_are_refused(tmp_path):
    written(tmp_path / "out", "train", {1: "cat", 2: "dog"})
    with pytest.raises(Mistake, match="must have the number it has"):
        written(tmp_path / "out", "val", {1: "dog", 2: "fish", 3: "cat"})
    image = [records.AnnotatedImage("", 1)]
    categories = [records.Category(1, "dog"), records.Category(2, "cat")]
    with pytest.raises(Mistake, match=r"'cat' as 2, and 1 in train\.json"):
        records.write_records(image, categories, str(tmp_path / "out"), "val", records.Problems())


def test_train_and_validation_of_two_folders_are_compared(tmp_path):
    written(tmp_path / "a", "train", {1: "cat", 2: "dog"})
    written(tmp_path / "b", "val", {1: "dog", 2: "cat"})
    train, validation = str(tmp_path / "a" / "train-*.tfrecord"), str(tmp_path / "b" / "val-*.tfrecord")
    with pytest.raises(Mistake, match=r"'cat' as 1 in .*train.* and 2 in .*val"):
        records.check_sets(train, validation)
    assert records.summary_of(train)["categories"] == {"1": "cat", "2": "dog"}
    assert records.summary_of(train.replace("-*.tfrecord", "-00000-of-00001.tfrecord"))["images"] == 1
    records.check_sets(train, str(tmp_path / "nowhere-*"))  # nothing is known of it


def test_empty_and_mixed_sets_are_refused(tmp_path):
    written(tmp_path / "out", "train", {1: "cat"})
    pattern = str(tmp_path / "out" / "train-*.tfrecord")
    (tmp_path / "out" / "train-00000-of-00008.tfrecord").write_bytes(b"")
    with pytest.raises(Mistake, match="those of one preparation"):
        records.check_sets(pattern, pattern)
    manifest = tmp_path / "out" / "train.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "images": 0}))
    with pytest.raises(Mistake, match="holds none"):
        records.check_sets(pattern, pattern)


def test_folders_with_brackets_and_stars_are_folders(tmp_path):
    """What `prepare` wrote into such a folder is found: by the checks, and by Model Garden's `tf.io.gfile.glob`."""
    folder = tmp_path / "photos [2024] *"
    folder.mkdir()
    for name in ("train-00000.tfrecord", "train-00001.tfrecord", "val-00000.tfrecord"):
        (folder / name).write_bytes(b"")
    pattern = str(folder / "train-*")
    escaped = record_sets.with_literal_folders(pattern)
    found = [str(folder / f"train-0000{number}.tfrecord") for number in range(2)]
    assert sorted(tf.io.gfile.glob(escaped)) == found == sorted(record_files(pattern))
    assert record_sets.with_literal_folders([pattern, "absent [a]/train-*"])[1] == "absent [a]/train-*"
    assert record_sets.with_literal_folders("records/train-*,") == "records/train-*"
