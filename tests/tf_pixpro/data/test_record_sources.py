"""Sources of records: TFRecords of any name and compression, streams, TFDS."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from image_sources import assert_same, batches, compressed, labels, records

from tf_evonorm.mistakes import Mistake
from tf_pixpro import data


def test_records_resume_and_divide_too(tmp_path, files):
    source = data.source(records(tmp_path / "a.tfrecord", files))
    assert source.num_examples == 10 and len(source.class_names) == 2
    whole = batches(source, 6)
    assert_same(batches(source, 2, start_step=4), whole[4:])
    parts = [batches(source, 2, input_context=tf.distribute.InputContext(2, i, 2)) for i in (0, 1)]
    together = {name: np.concatenate([part[1][name] for part in parts]) for name in whole[1]}
    assert_same([together], [whole[1]])


@pytest.mark.parametrize(
    "name, compression",
    [
        ("train.record", ""),
        ("train.record", "GZIP"),
        ("train.record-00000-of-00001", "ZLIB"),
        ("data[1].tfrecord", ""),
        ("data[1].tfrecord", "GZIP"),
        ("no_ending", "ZLIB"),
    ],
)
def test_records_of_any_name_and_compression(tmp_path, files, name, compression):
    folder = tmp_path / "root [v2]"
    folder.mkdir()
    plain = records(tmp_path / "plain", files)
    with tf.io.TFRecordWriter(str(folder / name), tf.io.TFRecordOptions(compression)) as writer:
        for record in tf.data.TFRecordDataset(str(plain)):
            writer.write(record.numpy())
    for pattern in (name, name[:5] + "*", name.replace("00000", "?????")):
        source = data.source(folder / pattern)
        assert source.num_examples == 10 and source.class_names == ("0", "1")
    assert len(batches(source, 1)[0]["view1"]) == 4


def test_labels_of_text_are_ignored_where_none_is_needed(tmp_path, files):
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content in files.values():
            feature = {
                key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                for key, value in (("image/encoded", content), ("image/class/label", b"cat"))
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    source = data.source(path)
    assert source.class_names == () and len(batches(source, 2)[0]["view1"]) == 4
    with pytest.raises(Mistake, match="labels are needed"):
        data.labelled_dataset(source)


def test_the_number_of_classes_may_be_said(tmp_path, files):
    """A thousand records may miss the largest label of many."""
    name = records(tmp_path / "a.tfrecord", files).name
    assert data.source(tmp_path / name, num_classes=5).class_names == ("0", "1", "2", "3", "4")
    with pytest.raises(Mistake, match=r"labels must be below num_classes\. Received num_classes=1, 1 in"):
        data.source(tmp_path / name, num_classes=1)


def test_damaged_records_are_refused(tmp_path, files):
    whole = records(tmp_path / "a.tfrecord", files).read_bytes()
    (tmp_path / "a.tfrecord").write_bytes(whole[:-20])
    with pytest.raises(Mistake, match="Copy them again"):
        data.source(tmp_path / "a.tfrecord")
    (tmp_path / "b.tfrecord").write_bytes(b"no records at all" * 9)
    with pytest.raises(Mistake, match="must hold images"):
        data.source(tmp_path / "b.tfrecord")


def test_four_hosts_read_each_record_once_in_the_order_of_one(tmp_path):
    source = compressed(tmp_path, [50, 14], "")
    whole = labels(source, 16)
    assert sorted(whole[:64]) == sorted(whole[64:]) == list(range(64)) and whole[:64] != whole[64:]
    parts = [labels(source, 16, 4, part) for part in range(4)]
    assert np.reshape(parts, [4, 16, 2]).transpose(1, 0, 2).ravel().tolist() == whole
    assert labels(source, 3, 4, 2, start_step=13) == parts[2][26:]


@pytest.mark.parametrize("files", [[9, 7, 30, 10, 8], [64]])
def test_hosts_share_streams(tmp_path, files):
    source = compressed(tmp_path, files)
    assert source.read is None and source.file_sizes == tuple(files)
    whole = labels(source, 16)
    assert sorted(whole[:64]) == sorted(whole[64:]) == list(range(64)) and whole[:64] != whole[64:]
    ends, parts = np.cumsum([0, *files]), 2
    for part in range(parts):
        mine = labels(source, 32, parts, part)
        if len(files) >= parts:  # files of its own, each record once in as many examples as they have
            own = [n for i in range(part, len(files), parts) for n in range(ends[i], ends[i + 1])]
            assert sorted(mine[: len(own)]) == sorted(mine[len(own) : 2 * len(own)]) == own
        else:
            assert mine[:32] == [n for i, n in enumerate(whole[:64]) if i % 8 // 4 == part]
        assert labels(source, 3, parts, part, start_step=29) == mine[4 * 29 :]


def test_a_stream_that_starts_late_reads_one_epoch_at_most(tmp_path):
    source = compressed(tmp_path, [20, 20])
    opened = []

    def noted(example):
        with tf.control_dependencies([tf.numpy_function(lambda: opened.append(1) or 0, [], tf.int64)]):
            return tf.nest.map_structure(tf.identity, example)

    def stream(*which):
        return source.stream(*which).map(noted)

    counted = dataclasses.replace(source, stream=stream)
    assert labels(counted, 1, start_step=5000) and len(opened) <= 80  # of 40,000 before it; some ahead of it


def test_the_order_of_a_stream_is_that_of_its_seed_alone(tmp_path):
    source = compressed(tmp_path, [20, 20, 20])
    expected = labels(source, 9)
    for seed in (0, 1):
        tf.random.set_seed(seed)
        assert labels(source, 9) == expected
    assert labels(source, 9, seed=4) != expected


def test_a_tfds_data_set_is_a_source(tmp_path):
    from tf_pixpro.data.scenes_tfds import ScenesConfig, SyntheticScenes

    config = ScenesConfig(name="tiny", size=(32, 32), train=6, validation=2)
    SyntheticScenes(config=config, data_dir=tmp_path).download_and_prepare()
    source = data.source("tfds:synthetic_scenes/tiny", split="validation", data_dir=str(tmp_path))
    assert source.num_examples == 2 and len(source.class_names) == 8
    assert_same(batches(source, 1, start_step=1), batches(source, 2)[1:])


@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
def test_tfds_sets_have_random_access(tmp_path, kind):
    import tensorflow_datasets

    from tf_pixpro.data.scenes_tfds import ScenesConfig, SyntheticScenes

    config = ScenesConfig(name="tiny", size=(32, 32), train=12, validation=2)
    builder = SyntheticScenes(config=config, data_dir=tmp_path, file_format=kind)
    builder.download_and_prepare()
    source = data.source("tfds:synthetic_scenes/tiny", split="train[25%:75%]", data_dir=str(tmp_path))
    assert source.read is not None and source.num_examples == 6
    decoders = {"image": tensorflow_datasets.decode.SkipDecoding()}
    if kind == "tfrecord":
        expected = list(builder.as_dataset("train[25%:75%]", decoders=decoders).as_numpy_iterator())
    else:
        expected = list(builder.as_data_source("train[25%:75%]", decoders=decoders))
    found = [source.read(tf.constant(i)) for i in range(6)]
    assert [e["bytes"].numpy() for e in found] == [e["image"] for e in expected]
    assert [e["label"].numpy() for e in found] == [e["label"] for e in expected]
    assert_same(batches(source, 1, start_step=5), batches(source, 6)[5:])
