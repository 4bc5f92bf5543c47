"""The index of TFRecords: what TensorFlow wrote is found again, record by record, and every kind of damage is named."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_pixpro.data import record_index as records


def write(path, contents, compression=""):
    path = str(path)
    tf.io.gfile.makedirs(os.path.dirname(path))
    if tf.io.gfile.exists(path):
        tf.io.gfile.remove(path)  # TensorFlow's ram:// would append to it
    with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression)) as writer:
        for content in contents:
            writer.write(content)
    return path


def contents(seed, count, length=40):
    generator = np.random.default_rng(seed)
    return [generator.bytes(int(generator.integers(0, length))) for _ in range(count)]


@pytest.fixture(params=["local", "ram"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"ram://{tmp_path.name}-{request.node.name[:20]}"


def test_each_record_is_found_as_tensorflow_wrote_it(root):
    sets = [contents(0, 900), contents(1, 1), contents(2, 40, length=30000), []]
    files = [write(f"{root}/a-{i}.tfrecord", some) for i, some in enumerate(sets)]
    index = records.record_index(files)
    read, everything = index.reader(), [content for some in sets for content in some]
    assert index.num_examples == 941 and index.counts.tolist() == [900, 1, 40, 0]
    numbers = tf.data.Dataset.range(941)
    assert [row[0].numpy() for row in numbers.map(read)] == everything
    assert read(tf.constant(900))[1].numpy().decode() == f"{files[1]}, byte 0"


def test_a_part_of_the_records_in_another_order(tmp_path):
    files = [write(tmp_path / str(i), contents(i, 9)) for i in range(2)]
    some = records.record_index(files).part([(files[1], 3, 4), (files[0], 8, 1), (files[0], 2, 0)])
    expected = [*contents(1, 9)[3:7], contents(0, 9)[8]]
    assert some.num_examples == 5 and [some.reader()(tf.constant(i))[0].numpy() for i in range(5)] == expected


def test_large_records_are_skipped_over(tmp_path, monkeypatch):
    file, amount = write(tmp_path / "a", [bytes(100_000)] * 50), []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda d, n, p: amount.append(n) or pread(d, n, p))
    assert records.record_index([file]).counts.tolist() == [50]
    assert sum(amount) == 65536 + 49 * 12  # the first reading does not know yet how large they are


def test_a_kept_index_reads_no_records(root, monkeypatch):
    files = [write(f"{root}/a-{i}.tfrecord", contents(i, 20)) for i in range(3)]
    made = records.record_index(files, pattern=f"{root}/a-*")
    monkeypatch.setattr(records, "_read", lambda *a: pytest.fail("read again"))
    kept = records.record_index(files, pattern=f"{root}/a-*")
    assert kept.num_examples == 60
    for one, other in zip(made.offsets, kept.offsets):
        np.testing.assert_array_equal(one, other)
    assert records.record_files(f"{root}/*") == files  # the index is no record


def test_a_changed_file_is_indexed_again_and_named(root, caplog):
    files = [write(f"{root}/a-{i}.tfrecord", contents(i, 20)) for i in range(3)]
    records.record_index(files, pattern="a-*", folder=root)
    write(files[1], contents(7, 25))
    index = records.record_index(files, pattern="a-*", folder=root)
    assert "1 of 3 files have changed since they were indexed, such as a-1.tfrecord" in caplog.text
    assert index.counts.tolist() == [20, 25, 20]
    assert index.reader()(tf.constant(44))[0].numpy() == contents(7, 25)[24]


def test_a_file_of_the_same_size_that_is_newer_has_changed(tmp_path, caplog):
    file = write(tmp_path / "a", [b"1234", b"56"])
    records.record_index([file])
    write(file, [b"12", b"3456"])
    os.utime(file, ns=(1, 1))
    assert records.record_index([file]).offsets[0].tolist() == [0, 18, 38] and "have changed" in caplog.text


def test_a_missing_shard_is_named(root):
    files = [write(f"{root}/a-{i}.tfrecord", contents(i, 3)) for i in range(3)]
    records.record_index(files, pattern=f"{root}/a-*")
    tf.io.gfile.remove(files[1])
    with pytest.raises(
        Mistake, match=r"must be there\. Received .* without a-1\.tfrecord\. Bring them back, or remove"
    ):
        records.record_index(records.record_files(f"{root}/a-*"), pattern=f"{root}/a-*")


@pytest.mark.parametrize("cut", [1, 4, 5, 20, 23, 25, 31])
def test_a_file_torn_anywhere_is_named(tmp_path, cut):
    whole = pathlib.Path(write(tmp_path / "a", [b"0123456789"] * 5)).read_bytes()
    good = write(tmp_path / "b", [b"x"])
    (tmp_path / "a").write_bytes(whole[:-cut])
    record = 4 - (cut > 26)
    with pytest.raises(Mistake, match=rf"Received '.*/a', which ends within record {record}\. Copy them again"):
        records.record_index([str(tmp_path / "a"), good])
    assert not list(tmp_path.glob(".records*"))


def test_a_file_cut_between_records_has_fewer(tmp_path):
    whole = pathlib.Path(write(tmp_path / "a", [b"0123456789"] * 5)).read_bytes()
    (tmp_path / "a").write_bytes(whole[:-26])
    assert records.record_index([str(tmp_path / "a")]).num_examples == 4


@pytest.mark.parametrize("damage", ["bit", "zeros"])
def test_damaged_headers_are_named(tmp_path, damage):
    file = pathlib.Path(write(tmp_path / "a", [b"0123456789"] * 9))
    content = bytearray(file.read_bytes())
    if damage == "bit":
        content[26 * 3] ^= 1
    else:
        content[26 * 3 :] = bytes(10**6)  # as file systems leave them after a crash
    file.write_bytes(content)
    with pytest.raises(Mistake, match=r"Received '.*/a', where the header of record 3 is damaged"):
        records.record_index([str(file)])


def test_damaged_data_fails_where_it_is_read(tmp_path):
    file = pathlib.Path(write(tmp_path / "a", [b"0123456789"] * 3))
    content = bytearray(file.read_bytes())
    content[26 + 15] ^= 1
    file.write_bytes(content)
    read = records.record_index([str(file)]).reader()
    assert read(tf.constant(0))[0].numpy() == read(tf.constant(2))[0].numpy() == b"0123456789"
    with pytest.raises(tf.errors.DataLossError):
        read(tf.constant(1))


def test_where_nothing_can_be_written_the_index_is_in_memory(tmp_path, caplog):
    file = write(tmp_path / "a", [b"1"] * 3)
    (tmp_path / "file").write_text("no folder")
    assert records.record_index([file], folder=str(tmp_path / "file" / "x")).num_examples == 3
    assert "is kept only in memory" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_index_is_made_again(tmp_path, damage):
    file = write(tmp_path / "a", [b"1"] * 3)
    records.record_index([file])
    (kept,) = tmp_path.glob(".records*")
    kept.write_bytes(kept.read_bytes()[:-30] if damage is None else damage)
    assert records.record_index([file]).num_examples == 3
    assert records._load(str(kept))["a"][2] == 3


def test_compressed_records_are_counted_once(tmp_path, monkeypatch):
    files = [write(tmp_path / f"{i}", contents(i, 4 + i), "GZIP") for i in range(3)]
    assert records.record_index(files, "GZIP").counts.tolist() == [4, 5, 6]
    monkeypatch.setattr(records, "_read", lambda *a: pytest.fail("read again"))
    assert records.record_index(files, "GZIP").counts.tolist() == [4, 5, 6]


def test_a_moved_set_keeps_its_index(tmp_path, monkeypatch):
    records.record_index([write(tmp_path / "one/a", [b"1"] * 3)])
    os.rename(tmp_path / "one", tmp_path / "two")
    monkeypatch.setattr(records, "_read", lambda *a: pytest.fail("read again"))
    assert records.record_index([str(tmp_path / "two/a")]).num_examples == 3


def test_checksums_are_those_of_rfc_3720():
    rows = np.stack([np.zeros(32, np.uint8), np.full(32, 255, np.uint8), np.arange(32, dtype=np.uint8)])
    crc = np.array([0x8A9136AA, 0x62A8AB43, 0x46DD794E], np.uint32)  # its appendix B.4
    masked = ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
    np.testing.assert_array_equal(records.masked_crc32c(rows), masked)
