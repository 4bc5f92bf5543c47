"""Sources and batches: the same whatever carries them, in a fixed order, resumable, loud about bad files."""

import dataclasses
import io
import os
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_evonorm.mistakes import Mistake
from tf_pixpro import data
from tf_pixpro.data import datasets, scenes


def jpeg(number: int, size=(60, 48)) -> bytes:
    generator = np.random.default_rng(number)
    blocks = generator.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize(size).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@pytest.fixture
def files():
    return {f"train/{'cat' if i % 2 else 'dog'}/{i:02d}.jpg": jpeg(i) for i in range(10)}


@pytest.fixture
def folder(tmp_path, files):
    return write(tmp_path / "images", files)


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def zip_of(path, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def batches(source, count, **options):
    options = {"size": (16, 16), "global_batch": 4, "seed": 5, **options}
    return [tf.nest.map_structure(np.array, b) for b in data.pretrain_dataset(source, **options).take(count)]


def assert_same(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two):
        for name in ("view1", "view2", "box1", "box2"):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_folder_and_zip_give_the_same_bytes(folder, files, tmp_path):
    expected = batches(data.source(folder), 3)
    assert expected[0]["view1"].shape == (4, 16, 16, 3) and expected[0]["box1"].dtype == np.float32
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert_same(batches(data.source(zip_of(tmp_path / f"{compression}.zip", files, compression)), 3), expected)
    assert_same(batches(data.source(folder), 3), expected)
    assert not np.array_equal(batches(data.source(folder), 1, seed=6)[0]["view1"], expected[0]["view1"])


def test_a_run_that_starts_later_goes_on_where_it_was(folder):
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


def records(path, files, key="image/encoded"):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, content in enumerate(files.values()):
            feature = {
                key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[content])),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 2])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return path


def test_records_resume_and_divide_too(tmp_path, files):
    source = data.source(records(tmp_path / "a.tfrecord", files))
    assert source.num_examples == 10 and len(source.class_names) == 2
    whole = batches(source, 6)
    assert_same(batches(source, 2, start_step=4), whole[4:])
    parts = [batches(source, 2, input_context=tf.distribute.InputContext(2, i, 2)) for i in (0, 1)]
    together = {name: np.concatenate([part[1][name] for part in parts]) for name in whole[1]}
    assert_same([together], [whole[1]])


def test_labels_come_from_folders(folder):
    source = data.source(folder, split="train")
    assert source.class_names == ("cat", "dog")
    rows = list(data.labelled_dataset(source, (16, 16), batch=4))
    assert [len(row["label"]) for row in rows] == [4, 4, 2] and rows[0]["image"].shape == (4, 16, 16, 3)
    assert sorted(np.concatenate([row["label"] for row in rows])) == [0] * 5 + [1] * 5
    assert sum(len(row["label"]) for row in data.labelled_dataset(source, (16, 16), limit=3)) == 3


def test_scenes_are_a_source():
    source = data.source("scenes", num_examples=6, size=(32, 32))
    assert batches(source, 1)[0]["view2"].shape == (4, 16, 16, 3) and len(source.class_names) == 8


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


def test_wrong_sources_are_refused(tmp_path, files):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.zip").write_bytes(b"PK not a zip")
    small = write(tmp_path / "small", {"a.jpg": jpeg(0, (60, 20))})
    fake = write(tmp_path / "fake", {"a.jpg": b"no image at all"})
    for make, error, words in [
        (lambda: data.source(tmp_path / "nowhere"), FileNotFoundError, "where there is nothing"),
        (lambda: data.source(tmp_path / "nowhere.zip"), FileNotFoundError, "where there is nothing"),
        (lambda: data.source(tmp_path / "empty"), ValueError, "images .* are needed"),
        (lambda: data.source(tmp_path / "notes.txt"), ValueError, "Received the file"),
        (lambda: data.source(tmp_path / "broken.zip"), ValueError, "Make it anew"),
        (lambda: data.source(small), ValueError, "sides of at least 32 pixels.*60x20"),
        (lambda: data.source(fake), ValueError, "a.jpg and others are none"),
        (lambda: data.source(write(tmp_path / "ok", files), split="val"), ValueError, "split='val' and .* has train"),
        (
            lambda: data.source(records(tmp_path / "b.tfrecord", files, "image")),
            ValueError,
            "need the key 'image/encoded'",
        ),
        (lambda: data.source("ram://nowhere/*"), FileNotFoundError, "where there is nothing"),
        (lambda: data.source("nosuch://a/b"), Mistake, "a file system that TensorFlow reaches.*nosuch"),
        (
            lambda: data.source(records(tmp_path / "c.tfrecord", files), num_examples=9),
            Mistake,
            "Received 9 and .* with 10",
        ),
        (lambda: data.source("tfds:no_such_set"), ValueError, "TFDS data set and split are needed"),
        (lambda: data.source(tmp_path / "ok", size=3), ValueError, "has no options"),
        (lambda: data.pretrain_dataset(data.source("scenes"), size=96), ValueError, r"\(height, width\) .* size=96"),
        (lambda: batches(data.source(tmp_path / "ok"), 1, global_batch=0), ValueError, "must divide over the replicas"),
    ]:
        with pytest.raises(error, match=words):
            make()


def test_real_photos_in_their_zip(shared_data):
    source = data.source(shared_data("photos/flowers_sub.zip"), split="train")
    assert source.num_examples == 140 and source.class_names == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert np.isfinite(batches(source, 1, size=(64, 64))[0]["view1"]).all()


def test_a_tfds_data_set_is_a_source(tmp_path):
    from tf_pixpro.data.scenes_tfds import ScenesConfig, SyntheticScenes

    config = ScenesConfig(name="tiny", size=(32, 32), train=6, validation=2)
    SyntheticScenes(config=config, data_dir=tmp_path).download_and_prepare()
    source = data.source("tfds:synthetic_scenes/tiny", split="validation", data_dir=str(tmp_path))
    assert source.num_examples == 2 and len(source.class_names) == 8
    assert_same(batches(source, 1, start_step=1), batches(source, 2)[1:])


def test_names_that_are_not_utf8_are_read(tmp_path):
    os.makedirs(os.path.join(os.fsencode(tmp_path), b"caf\xe9"))
    for number in range(4):
        with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9", b"%d\xff.jpg" % number), "wb") as file:
            file.write(jpeg(number))
    source = data.source(tmp_path)
    assert source.num_examples == 4 and len(batches(source, 1)[0]["view1"]) == 4


def test_content_decides_and_not_the_name(tmp_path):
    image = np.asarray(Image.open(io.BytesIO(jpeg(0))))
    kinds = ["WEBP", "TIFF", "PNG", "GIF", "BMP", "JPEG2000"]
    for number, kind in enumerate(kinds):
        Image.fromarray(image).save(tmp_path / f"{number}.jpg", kind)
    source = data.source(tmp_path)
    rows = [source.read(tf.constant(i)) for i in range(len(kinds))]
    assert all(np.isfinite(batch["view1"]).all() for batch in batches(source, 3, max_bad_share=0.0))
    assert [row["bytes"].numpy()[:4] for row in rows[:3]] == [b"RIFF", b"II*\0", b"\x89PNG"]


@pytest.mark.parametrize("name", ["UPPER.ZIP", "backslash.zip"])
def test_zips_of_windows_have_splits_and_classes(tmp_path, files, name):
    path, text = tmp_path / name, "\\" if name.startswith("back") else "/"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            info = zipfile.ZipInfo("x")
            info.filename = member.replace("/", text)
            archive.writestr(info, content)
    source = data.source(path, split="train")
    assert source.class_names == ("cat", "dog") and source.num_examples == 10
    assert len(batches(source, 1, max_bad_share=0.0)[0]["view1"]) == 4


def test_zips_that_python_cannot_read_are_refused(tmp_path, files):
    whole = zip_of(tmp_path / "a.zip", files, zipfile.ZIP_DEFLATED).read_bytes()
    start = whole.index(b"PK\x01\x02")
    for offset, value, words in [(8, 1, "must not be encrypted"), (10, 9, "packed by deflate64"), (10, 98, "ppmd")]:
        changed = bytearray(whole)
        position = start
        while position >= 0:
            changed[position + offset] = value
            position = whole.find(b"PK\x01\x02", position + 4)
        (tmp_path / "b.zip").write_bytes(changed)
        with pytest.raises(Mistake, match=words):
            data.source(tmp_path / "b.zip")


def test_a_damaged_member_of_a_zip_is_a_bad_image(tmp_path, files, caplog):
    path = zip_of(tmp_path / "a.zip", files)
    content = bytearray(path.read_bytes())
    content[content.index(jpeg(3)) + 200] ^= 255
    path.write_bytes(content)
    assert len(batches(data.source(path), 30)) == 30 and "03.jpg" in caplog.text


@pytest.mark.parametrize("name", ["train.record", "train.record-00000-of-00001", "data[1].tfrecord", "no_ending"])
@pytest.mark.parametrize("compression", ["", "GZIP", "ZLIB"])
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
    with pytest.raises(Mistake, match="Copy them anew"):
        data.source(tmp_path / "a.tfrecord")
    (tmp_path / "b.tfrecord").write_bytes(b"no records at all" * 9)
    with pytest.raises(Mistake, match="must hold images"):
        data.source(tmp_path / "b.tfrecord")


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


def test_huge_images_are_reported_and_decoded(tmp_path, files, caplog, monkeypatch):
    monkeypatch.setattr("tf_pixpro.data.sources.MAX_PIXELS", 2000)
    source = data.source(write(tmp_path / "a", files))
    assert "10 of 10 images looked at have more than" in caplog.text and "(60x48)" in caplog.text
    assert len(batches(source, 1)[0]["view1"]) == 4


def test_classes_of_two_sets_agree_by_names(tmp_path, files):
    train = data.source(write(tmp_path / "train", files))
    some = {name.replace("train/dog", "dog"): content for name, content in files.items() if "dog" in name}
    some |= {f"bird/{i}.jpg": jpeg(i) for i in range(2)}
    val = data.source(write(tmp_path / "val", some))
    with pytest.raises(Mistake, match=r"must have the same classes.*bird, cat"):
        data.check_labels(val, train.class_names)
    with pytest.raises(Mistake, match=r"also \['bird'\]"):
        data.with_classes(val, train.class_names)
    names = ("cat", "dog", "zebra", "bird")
    labels = np.concatenate([row["label"] for row in data.labelled_dataset(data.with_classes(val, names), (16, 16))])
    assert labels.tolist() == [3] * 2 + [1] * 5
    data.check_labels(train, ("cat", "dog"))


def test_drawn_scenes_are_kept_within_a_bound(monkeypatch):
    monkeypatch.setattr("tf_pixpro.data.sources._SCENE_BYTES", 3 * 32 * 32 * 4)
    drawn = []
    monkeypatch.setattr(scenes, "scene", lambda *a, draw=scenes.scene: drawn.append(a[0]) or draw(*a))
    source = data.source("scenes", num_examples=6, size=(32, 32))
    for index in (0, 1, 0, 2, 3, 4, 1):
        source.read(tf.constant(index))
    assert drawn == [0, 1, 2, 3, 4, 1]


def compressed(folder, counts, compression="GZIP"):
    """Files of so many records each, whose labels are their numbers over all files."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for file, count in enumerate(counts):
        with tf.io.TFRecordWriter(str(folder / f"{file}.tfrecord"), tf.io.TFRecordOptions(compression)) as writer:
            for _ in range(count):
                feature = {
                    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"%d" % number])),
                    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
                number += 1
    return data.source(folder / "*.tfrecord")


def labels(source, count, pipelines=1, part=0, **options):
    context = tf.distribute.InputContext(pipelines, part, pipelines) if pipelines > 1 else None
    options = {"global_batch": 8, "seed": 3, "input_context": context, **options}
    batches = data.training_dataset(source, lambda example, seed: example["label"], **options)
    return np.concatenate(list(batches.take(count).as_numpy_iterator())).tolist()


def test_remote_folders_and_zips_give_the_same_bytes(folder, files, tmp_path):
    root = "ram://remote_images"
    for name, content in files.items():
        tf.io.gfile.makedirs(f"{root}/folder/{os.path.dirname(name)}")
        with tf.io.gfile.GFile(f"{root}/folder/{name}", "wb") as file:
            file.write(content)
    tf.io.gfile.copy(str(zip_of(tmp_path / "a.zip", files, zipfile.ZIP_DEFLATED)), f"{root}/a.zip")
    expected = data.source(folder)
    for path in (f"{root}/folder", f"{root}/a.zip"):
        source = data.source(path)
        assert source.class_names == ("cat", "dog")
        assert_same(batches(source, 3), batches(expected, 3))


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


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_a_limit_spreads_evenly(tmp_path, monkeypatch, compression):
    monkeypatch.setattr(datasets, "centre_view", lambda *a: tf.zeros([]))
    source = compressed(tmp_path, [20, 27], compression)
    for limit in (1, 7, 23, 46, 47, 90):
        rows = data.labelled_dataset(source, limit=limit).as_numpy_iterator()
        chosen = np.concatenate([row["label"] for row in rows]).tolist()
        order = [e["label"] for e in source.stream(None).as_numpy_iterator()] if compression else list(range(47))
        assert chosen == [order[i * 47 // min(limit, 47)] for i in range(min(limit, 47))]


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
