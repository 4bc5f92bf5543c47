"""Batches: the same in any number of parts, in a fixed order, resumable, loud about bad files."""

import numpy as np
import pytest
import tensorflow as tf
from image_sources import assert_same, batches, compressed, jpeg, write

from tf_evonorm.mistakes import Mistake
from tf_pixpro import data
from tf_pixpro.data import datasets


def test_a_run_that_starts_later_resumes_the_same_order(folder):
    whole = batches(data.source(folder), 7)
    assert_same(batches(data.source(folder), 3, start_step=4), whole[4:])


def test_every_epoch_shows_each_image_once_in_another_order():
    order = datasets._shuffled(10, seed=5)
    epochs = [[int(order(tf.constant(10 * epoch + i, tf.int64))) for i in range(10)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize(("pipelines", "replicas"), [(2, 2), (1, 2)])
def test_parts_of_a_batch_put_together_are_the_batch(folder, pipelines, replicas):
    expected = batches(data.source(folder), 3)
    parts = [
        batches(
            data.source(folder),
            3 * replicas // pipelines,
            input_context=tf.distribute.InputContext(pipelines, i, replicas),
        )
        for i in range(pipelines)
    ]
    for step in range(3):
        here = [
            batch for part in parts for batch in part[step * replicas // pipelines : (step + 1) * replicas // pipelines]
        ]
        together = {name: np.concatenate([batch[name] for batch in here]) for name in here[0]}
        assert_same([together], [expected[step]])


def test_a_bad_image_is_replaced_named_and_counted(tmp_path, files, caplog):
    files = {**files, "train/cat/bad.jpg": jpeg(99)[:-400]}
    good = batches(data.source(write(tmp_path / "images", files)), 60)  # a single file, even of few and in every epoch
    assert all(np.isfinite(batch["view1"]).all() and len(batch["view1"]) == 4 for batch in good)
    assert caplog.text.count("bad.jpg") == 1 and "number 1 so far" in caplog.text


@pytest.mark.parametrize(("bad", "share"), [(2, 0.01), (1, 0.0)])
def test_too_many_bad_images_stop_the_run(tmp_path, files, bad, share):
    files = {**files, **{f"train/cat/bad{i}.jpg": jpeg(99)[:-400] for i in range(bad)}}
    source = data.source(write(tmp_path / "images", files))
    message = rf"at most {share:.2%} of the images may be undecodable. Received {bad} of .*bad0\.jpg"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        batches(source, 60, max_bad_share=share)


def test_labelled_images_leave_bad_ones_out_and_say_so(tmp_path, files, caplog):
    source = data.source(write(tmp_path / "images", {**files, "train/cat/bad.jpg": jpeg(99)[:-400]}), split="train")
    rows = data.labelled_dataset(source, (16, 16), batch=4, max_bad_share=0.5)
    assert sum(len(row["label"]) for row in rows) == source.num_examples - 1 == 10
    assert "bad.jpg" in caplog.text and "left out (number 1 so far)" in caplog.text


def test_anything_may_be_made_of_training_images(folder):
    def prepare(example, seed):
        return tf.cast(example["label"], tf.int32), seed

    labels, seeds = next(iter(data.training_dataset(data.source(folder, split="train"), prepare, global_batch=10)))
    assert sorted(labels.numpy()) == [0] * 5 + [1] * 5 and len(set(map(tuple, seeds.numpy()))) == 10


def test_half_bad_small_folders_fail_in_the_first_batches(tmp_path, files):
    half = {name: content if i % 2 else content[:-400] for i, (name, content) in enumerate(files.items())}
    source = data.source(write(tmp_path / "truncated", half))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most 1\.00% of the images"):
        batches(source, 3)
    none = {name: content if i % 2 else b"no image" for i, (name, content) in enumerate(files.items())}
    source = data.source(write(tmp_path / "none", none))
    for make in (data.pretrain_dataset, data.labelled_dataset):
        with pytest.raises(Mistake, match="Received 5 of 10"):
            make(source)


def test_a_large_half_bad_set_fails_long_before_its_end(tmp_path):
    files = {f"{i:04d}.jpg": jpeg(i % 7)[: None if i % 2 else -400] for i in range(600)}
    seen = 0
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most 10\.00% of the images"):
        for batch in data.pretrain_dataset(data.source(write(tmp_path / "a", files)), (16, 16), 4, max_bad_share=0.1):
            seen += len(batch["view1"])
    assert seen < 60


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_a_limit_spreads_evenly(tmp_path, monkeypatch, compression):
    monkeypatch.setattr(datasets, "centre_view", lambda *a: tf.zeros([]))
    source = compressed(tmp_path, [20, 27], compression)
    for limit in (1, 7, 23, 46, 47, 90):
        rows = data.labelled_dataset(source, limit=limit).as_numpy_iterator()
        chosen = np.concatenate([row["label"] for row in rows]).tolist()
        order = [e["label"] for e in source.stream(None).as_numpy_iterator()] if compression else list(range(47))
        assert chosen == [order[i * 47 // min(limit, 47)] for i in range(min(limit, 47))]
