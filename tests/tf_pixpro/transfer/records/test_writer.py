"""A set of records is replaced as a whole, knows what it was made from, and is resumed after a kill."""

import hashlib
import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
import tensorflow as tf
from annotated import examples_of, picture_file
from PIL import Image

from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer import records
from tf_pixpro.transfer.records import writer

CATEGORIES = [records.Category(1, "cat")]


def annotated(folder, count, high=255):
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        if not path.exists():
            picture_file(path, high=high)
    return [records.AnnotatedImage(str(path), number, (6, 8)) for number, path in enumerate(paths, 1)]


def write(tmp_path, images, name="train", shards=4, **options):
    problems = records.Problems()
    return records.write_records(
        images, CATEGORIES, str(tmp_path / "out"), name, problems, shards, progress=False, **options
    )


def numbers(tmp_path, pattern="train-*"):
    """Ids of all records that a config's pattern matches."""
    files = sorted(map(str, (tmp_path / "out").glob(f"{pattern}.tfrecord")))
    found = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(files)]
    return sorted(int(one.features.feature["image/source_id"].bytes_list.value[0]) for one in found)


def state(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("first, second", [((3, 8), (4, 8)), ((4, 8), (3, 8)), ((8, 4), (8, 2)), ((8, 2), (8, 4))])
def test_other_counts_and_shards_leave_nothing_behind(tmp_path, first, second):
    for count, shards in (first, second):
        write(tmp_path, annotated(tmp_path / "in", count), shards=shards)
    assert numbers(tmp_path) == list(range(1, second[0] + 1))
    fresh = tmp_path / "fresh"
    (fresh).mkdir()
    write(fresh, annotated(tmp_path / "in", second[0]), shards=second[1])
    assert state(tmp_path / "out") == state(fresh / "out")


def test_corrected_files_are_read_again(tmp_path):
    images = annotated(tmp_path / "in", 4)
    content = (tmp_path / "in" / "3.png").read_bytes()
    (tmp_path / "in" / "3.png").unlink()
    assert write(tmp_path, images)["problems"] == {"missing file": 1}
    (tmp_path / "in" / "3.png").write_bytes(content)
    again = write(tmp_path, images)
    assert (again["images"], again["problems"], again["lines"]) == (4, {}, [])


def test_a_changed_image_or_mask_of_the_same_size_and_time_is_read_again(tmp_path):
    masks = [tmp_path / "in" / f"{number}_mask.png" for number in range(2)]
    images = annotated(tmp_path / "in", 2)
    for path in masks:
        Image.fromarray(np.zeros((6, 8), np.uint8)).save(path)
    images = [records.AnnotatedImage(i.path, i.number, classes=str(mask)) for i, mask in zip(images, masks)]
    write(tmp_path, images)
    untouched, changed = (tmp_path / "out" / f"train-0000{shard}-of-00002.tfrecord" for shard in range(2))
    before, time = changed.read_bytes(), untouched.stat().st_mtime_ns
    seen = os.stat(masks[1])
    Image.fromarray(np.ones((6, 8), np.uint8)).save(masks[1])
    os.utime(masks[1], ns=(seen.st_atime_ns, seen.st_mtime_ns))
    write(tmp_path, images)
    assert changed.read_bytes() != before and untouched.stat().st_mtime_ns == time
    (example,) = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(changed))]
    stored = example.features.feature["image/segmentation/class/encoded"].bytes_list.value[0]
    assert (tf.io.decode_png(stored).numpy() == 1).all()


@pytest.mark.parametrize("options", [{"exif": False}, {"bits": 12}])
def test_other_options_are_another_set(tmp_path, options):
    images = annotated(tmp_path / "in", 2)
    first = write(tmp_path, images)["shards"]
    second = write(tmp_path, images, **options)["shards"]
    assert all(first[file]["source"] != second[file]["source"] for file in first)


def test_no_pattern_of_one_set_matches_another(tmp_path):
    images = annotated(tmp_path / "in", 4)
    write(tmp_path, images)
    for name in ("train-small", "train_annotations", "a/b", "*", "", "-x"):
        with pytest.raises(Mistake, match=r"Pass '\w"):
            write(tmp_path, images[:1], name=name)
    write(tmp_path, images[:1], name=records.free_name("train-small"))
    write(tmp_path, images[:1], name="trainval")
    before = state(tmp_path / "out")
    assert numbers(tmp_path) == [1, 2, 3, 4] and numbers(tmp_path, "train_small-*") == [1]
    write(tmp_path, images[:3])
    assert {n for n, h in state(tmp_path / "out").items() if before.get(n) == h} >= {
        n for n in before if n.startswith(("train_small", "trainval"))
    }
    (tmp_path / "out" / "train-small-00000-of-00001.tfrecord").write_bytes(b"")
    with pytest.raises(Mistake, match="train-small-00000"):
        write(tmp_path, images)


def test_nothing_left_ends_with_the_reasons_and_keeps_the_old_set(tmp_path):
    images = annotated(tmp_path / "in", 2)
    write(tmp_path, images)
    before = state(tmp_path / "out")
    gone = [records.AnnotatedImage(str(tmp_path / f"gone{n}.png"), n, where="list") for n in range(9)]
    with pytest.raises(Mistake, match=r"no image could be used.*there is no .*gone\d\.png.*and 4 more"):
        write(tmp_path, gone)
    assert state(tmp_path / "out") == before
    problems = records.Problems()
    problems.add("bad annotation", "a.xml", "no XML.")
    with pytest.raises(Mistake, match=r"0 images.*a\.xml: no XML"):
        records.write_records([], CATEGORIES, str(tmp_path / "out"), "train", problems)


POINTS = ("_write_shard", "_Set.remember", "_remove", "_dump", "tf.io.gfile.rename")


def killed(tmp_path, images, point, count):
    """Writes in a process of its own that kills itself at the count-th call of a function."""
    owner, name = writer, point
    for part in point.split(".")[:-1]:
        owner, name = getattr(owner, part), name.partition(".")[2]
    original, calls = getattr(owner, name), []

    def then_killed(*arguments, **options):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, name, then_killed)
    write(tmp_path, images)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("point", POINTS)
def test_after_a_kill_anywhere_the_set_is_whole(tmp_path, point, count):
    old, new = annotated(tmp_path / "in", 3, high=100), annotated(tmp_path / "in", 5)
    write(tmp_path, old, shards=3)
    before = state(tmp_path / "out")
    process = multiprocessing.get_context("fork").Process(target=killed, args=(tmp_path, new, point, count))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL or (count == 5 and process.exitcode == 0)
    manifest = tmp_path / "out" / "train.json"
    if manifest.exists():  # then what it lists is what is there
        listed = json.loads(manifest.read_text())["shards"]
        present = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in manifest.parent.glob("train-*.tfrecord")}
        assert present == {file: entry["sha256"] for file, entry in listed.items()}
        assert process.exitcode == 0 or {n: before[n] for n in present} == present
    write(tmp_path, new)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    write(fresh, new)
    assert state(tmp_path / "out") == state(fresh / "out")
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir() or ".partial" in path.name]


def test_a_set_where_one_object_has_an_outline():
    box = records.ObjectAnnotation(1, (0, 0, 2, 2), 4, where="a")
    outline = records.ObjectAnnotation(1, (0, 0, 2, 2), 4, segmentation=[[0, 0, 2, 0, 2, 2]])
    images = [records.AnnotatedImage("", 1, objects=(box,)), records.AnnotatedImage("", 2, objects=(outline, box))]
    problems = records.Problems()
    with_outlines = writer.outlined(images, problems)
    assert problems.counts == {"no outline": 2}
    assert all(one.segmentation for image in with_outlines for one in image.objects)
    assert with_outlines[0].objects[0].segmentation == [[0, 0, 2, 0, 2, 2, 0, 2]]
    assert writer.outlined(images[:1], problems) == images[:1]


@pytest.mark.parametrize("bits, divisor", [(16, 256), (12, 16)])
def test_deep_grey_is_scaled_by_its_range(tmp_path, bits, divisor):
    values = np.linspace(0, 2**bits - 1, 48).astype(np.uint16).reshape(6, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    write(tmp_path, [records.AnnotatedImage(str(tmp_path / "a.png"), 1)], bits=bits)
    (record,) = examples_of(tmp_path / "out", "train")
    stored = tf.train.Example.FromString(record.numpy()).features.feature["image/encoded"].bytes_list.value[0]
    np.testing.assert_array_equal(tf.io.decode_image(stored)[..., 0], values // divisor)


def test_mask_rcnns_parser_takes_objects_without_outlines(tmp_path):
    """Model Garden's parser crops as many masks as boxes, of every image of the set."""
    from official.vision.dataloaders import maskrcnn_input, tf_example_decoder

    outline = records.ObjectAnnotation(1, (1, 1, 7, 5), 24, segmentation=[[1, 1, 7, 1, 7, 5, 1, 5]])
    box = records.ObjectAnnotation(1, (0, 0, 4, 4), 16)
    images = annotated(tmp_path / "in", 3)
    objects = ((outline, box), (box,), ())
    images = [records.AnnotatedImage(i.path, i.number, i.size, o) for i, o in zip(images, objects)]
    assert write(tmp_path, images, shards=1)["problems"] == {"no outline": 2}
    decode = tf_example_decoder.TfExampleDecoder(include_mask=True).decode
    levels = {"min_level": 2, "max_level": 3, "num_scales": 1, "aspect_ratios": [1.0], "anchor_size": 4.0}
    parser = maskrcnn_input.Parser([32, 32], **levels, include_mask=True, mask_crop_size=8, max_num_instances=4)
    for record, few in zip(examples_of(tmp_path / "out", "train"), objects):
        _, labels = parser._parse_train_data(decode(record))
        assert (labels["gt_classes"].numpy() > 0).sum() == len(few)
        assert (labels["gt_masks"].numpy()[: len(few), 2:6, 2:6] > 0.5).all()  # each fills its box
