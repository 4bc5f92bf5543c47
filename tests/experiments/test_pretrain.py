"""The pre-training binary: the authors' recipe in its config, mistakes in one line, a whole run, and kill -9 in the
middle of one."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from image_sources import jpeg, records
from ml_collections import ConfigDict

from experiments.builders import pretext
from experiments.configs.pretrain import pixpro_r18_photos, pixpro_r50_imagenet
from experiments.launch import session
from experiments.launch.schedule import Schedule
from tf_pixpro import LARS, data
from tf_pixpro.data.scenes_tfds import ScenesConfig, SyntheticScenes

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = "experiments/configs/"
PHOTOS = f"--config={CONFIGS}pretrain/pixpro_r18_photos.py"


def start(*arguments):
    """Starts the binary as a user would."""
    command = [sys.executable, "-m", "experiments.pretrain", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process, timeout=600):
    out, errors = process.communicate(timeout=timeout)
    return process.returncode, out, errors


def started_session(config, workdir, mode="train"):
    return session.Session(config, str(workdir), mode)


@pytest.mark.parametrize("variant, steps", [("100", 125100), ("400", 500400)])
def test_the_authors_recipe(variant, steps):
    # Source: tools/pixpro_base_r50_{100,400}ep.sh and the loader's 1,251 iterations an epoch.
    config = pixpro_r50_imagenet.get_config(variant)
    schedule = session.build(Schedule, "schedule", config.schedule, images=1281167)
    assert (schedule.batch, schedule.steps, schedule.learning_rate.warmup_steps) == (1024, steps, 5 * 1251)
    assert schedule.learning_rate.peak == 4.0
    optimizer = pretext.optimizer(config, schedule)
    assert isinstance(optimizer, LARS)
    assert (optimizer.momentum, optimizer.decay, optimizer.trust_coefficient) == (0.9, 1e-5, 0.001)
    assert (config.backbone.depth, config.views.size, config.views.scale) == (50, (224, 224), (0.08, 1.0))


def test_the_smoke_recipe_makes_everything():
    config = pixpro_r50_imagenet.get_config("smoke")  # the other one runs below
    source = session.build(data.source, "source", config.source)
    schedule = session.build(Schedule, "schedule", config.schedule, images=source.num_examples)
    model = pretext.pretext_model(config, schedule.steps)
    batch = next(iter(pretext.views(config, source, schedule.batch)))
    assert np.isfinite(model.pretext_loss(batch, training=False)["loss"])
    probe = session.build(pretext.evaluation, "evaluation", config.evaluation, config=config, schedule=schedule)
    assert next(iter(probe.queries(None)))["image"].shape == (schedule.batch, *config.views.size, 3)
    pretext.optimizer(config, schedule).build(model.trainable_weights)


def test_mistakes_in_a_config(tmp_path):
    config = pixpro_r18_photos.get_config("smoke")
    schedule = Schedule(images=16, batch=4, epochs=1, base_rate=1.0)
    with pytest.raises(ValueError, match=r"config\.model .* PixPro.*levle.*It takes .*level, distance, momentum"):
        pretext.pretext_model(ConfigDict({**config, "model": {"levle": "5"}}), 1)
    with pytest.raises(ValueError, match=r"config\.projection .* ProjectionHead.*hiden"):
        pretext.pretext_model(ConfigDict({**config, "projection": {"hiden": 3}}), 1)
    with pytest.raises(ValueError, match=r"one of lars, sgd, adam, adamw, rmsprop\. Received 'lion'"):
        pretext.optimizer(ConfigDict({"optimizer": {"name": "lion"}}), schedule)
    with pytest.raises(ValueError, match="Received 'votes'"):
        pretext.evaluation(config, schedule, kind="votes")
    with pytest.raises(ValueError, match=r"other images than it learns from\. Received one set for both"):
        pretext.evaluation(ConfigDict({**config, "evaluation": {}}), schedule, kind="knn")
    with pytest.raises(ValueError, match=r"Received 3 images and config\.schedule\.batch=4"):
        Schedule(images=3, batch=4, epochs=1, base_rate=1.0).steps  # noqa: B018
    with pytest.raises(ValueError, match="Received 'tiny'"):
        pixpro_r50_imagenet.get_config("tiny")


def test_a_folder_holds_one_experiment(tmp_path):
    first = pixpro_r18_photos.get_config("smoke")
    session.start_session(first, str(tmp_path), "train")
    tf.train.CheckpointManager(tf.train.Checkpoint(), str(tmp_path), max_to_keep=1).save()
    again = pixpro_r18_photos.get_config("smoke")
    again.trainer.steps_per_loop = 1  # says nothing about the result
    session.start_session(again, str(tmp_path), "train")
    again.schedule.batch = 8
    with pytest.raises(ValueError, match=r"another config \(schedule.batch: 4 -> 8\)"):
        session.start_session(again, str(tmp_path), "train")
    assert session.start_session(again, str(tmp_path), "export").config.schedule.batch == 4  # as the run was


def test_a_run_resumes_on_its_own_images_alone(tmp_path):
    """Records that changed, or are fewer, would silently become another order of other images."""
    images, workdir = tmp_path / "images", tmp_path / "run"
    path = as_records(images)["path"]
    run = session.Session(pixpro_r18_photos.get_config("smoke"), str(workdir), "train")
    workdir.mkdir()

    def check():
        session.check_same_images(run, data.source(path))

    check()
    tf.train.CheckpointManager(tf.train.Checkpoint(), str(workdir), max_to_keep=1).save()
    check()
    file = min(images.glob("*tfrecord*"))
    kept = [record.numpy() for record in tf.data.TFRecordDataset(str(file))]
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in kept[:-1]:
            writer.write(record)
    message = rf"on the images that it began with.*2 changed \({file.name}: .* -> "
    with pytest.raises(ValueError, match=message) as raised:
        check()
    assert "images: " in str(raised.value) and len(str(raised.value).splitlines()) == 1
    (workdir / "source.json").unlink()  # the way on that the message names
    check()


def test_records_replaced_by_others_of_the_same_size_are_noticed(tmp_path, caplog):
    images = {str(number): jpeg(number) for number in range(4)}
    file = records(tmp_path / "a.tfrecord", images)
    run = session.Session(pixpro_r18_photos.get_config("smoke"), str(tmp_path), "train")

    def check():
        session.check_same_images(run, data.source(file))

    check()
    tf.train.CheckpointManager(tf.train.Checkpoint(), str(tmp_path), max_to_keep=1).save()
    size = file.stat().st_size
    os.utime(file, ns=(1, 1))  # copied: indexed again, but the same images
    check()
    records(file, dict(reversed(images.items())))
    assert file.stat().st_size == size
    with pytest.raises(ValueError, match=rf"1 changed \(a\.tfrecord: \[{size}, \d+\] -> \[{size}, \d+\]") as raised:
        check()
    assert len(str(raised.value).splitlines()) == 1
    warned = "1 of 1 files have changed since they were indexed, such as a.tfrecord, and are indexed again"
    assert caplog.text.count(warned) == 2
    described = json.loads((tmp_path / "source.json").read_text())
    (tmp_path / "source.json").write_text(json.dumps({**described, file.name: size}))  # as it was written before
    check()


def test_a_wrong_flag_is_one_line(tmp_path):
    wrong = {
        "no key": ('Did you mean "depth"', PHOTOS + ":smoke", "--config.backbone.dept=18"),
        "no file": ("nothing.zip", PHOTOS, "--config.source.path=nothing.zip"),
        "no mode": ("mode", PHOTOS + ":smoke", "--mode=test"),
    }
    processes = {name: start(*flags, f"--workdir={tmp_path}") for name, (_, *flags) in wrong.items()}
    for name, process in processes.items():
        code, _, errors = finished(process)
        lines = [line for line in errors.splitlines() if wrong[name][0] in line]
        assert code != 0 and lines and "Traceback" not in errors, (name, errors)


def test_a_whole_run(tmp_path):
    code, out, errors = finished(start(PHOTOS + ":smoke", f"--workdir={tmp_path}"))
    assert code == 0, errors
    assert "16 images, 4 steps of 4 an epoch" in out and "knn_accuracy" in out
    assert "4/4" in errors and "loss=" in errors  # the bar
    left = {path.name for path in tmp_path.iterdir()}
    assert {
        "config.json",
        "log.txt",
        "backbone.index",
        "best",
        "train",
        "validation",
        "pictures",
        "ckpt-4.index",
    } <= left
    code, _, errors = finished(start(PHOTOS + ":smoke", f"--workdir={tmp_path}"))
    assert code == 0 and "holds all 4 steps of this run; nothing is left to train" in errors


def checkpoint(folder):
    """Everything in a folder's latest checkpoint."""
    reader = tf.train.load_checkpoint(str(folder))
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map() if "GRAPH" not in key}


def killed(arguments, folder, when):
    """Starts a run and ends it by SIGKILL as soon as `when()` is true."""
    process = start(*arguments, f"--workdir={folder}")
    limit = time.monotonic() + 500
    while not when() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"


def as_records(folder):
    """Sixteen drawn images as two TFRecords; the section of their source."""
    folder.mkdir()
    scenes = data.source("scenes", num_examples=16, size=(96, 96))
    for file in range(2):
        with tf.io.TFRecordWriter(str(folder / f"{file}.tfrecord")) as writer:
            for number in range(8 * file, 8 * file + 8):
                image = tf.train.BytesList(value=[scenes.read(tf.constant(number))["bytes"].numpy()])
                features = tf.train.Features(feature={"image/encoded": tf.train.Feature(bytes_list=image)})
                writer.write(tf.train.Example(features=features).SerializeToString())
    return {"path": f"{folder}/*.tfrecord"}


def as_tfds(folder):
    """Sixteen drawn images as array_record; the section of their source."""
    config = ScenesConfig(name="small", size=(96, 96), train=16, validation=1)
    SyntheticScenes(config=config, data_dir=folder, file_format="array_record").download_and_prepare()
    return {"path": "tfds:synthetic_scenes/small", "data_dir": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize("write", [None, as_records, as_tfds], ids=["scenes", "records", "tfds"])
def test_killed_runs_end_as_if_they_had_not_been_killed(tmp_path, write):
    config = PHOTOS + ":smoke"
    if write:
        lines = ["from experiments.configs.pretrain import pixpro_r18_photos", "def get_config():"]
        lines += ["    config = pixpro_r18_photos.get_config('smoke')"]
        lines += [f"    config.source = {write(tmp_path / 'images')!r}", "    return config"]
        (tmp_path / "config.py").write_text("\n".join(lines))
        config = f"--config={tmp_path / 'config.py'}"
    arguments = [config, "--config.deterministic=True", "--config.schedule.epochs=10.0", "--mode=train"]
    arguments += ["--config.trainer.steps_per_loop=1", "--config.trainer.checkpoint_epochs=0.5"]
    code, _, errors = finished(start(*arguments, f"--workdir={tmp_path / 'whole'}"))
    assert code == 0, errors
    parts = tmp_path / "parts"
    killed(arguments, parts, lambda: (parts / "ckpt-11.index").exists())
    # TensorFlow writes a checkpoint into a folder of this name first.
    killed(arguments, parts, lambda: any(int(p.name[5:].split("_")[0]) > 20 for p in parts.glob("ckpt-*_temp*")))
    at = int(tf.train.latest_checkpoint(str(parts)).rsplit("-", 1)[1])
    assert 11 <= at < 40
    code, _, errors = finished(start(*arguments, f"--workdir={parts}"))
    assert code == 0, errors
    whole, resumed = checkpoint(tmp_path / "whole"), checkpoint(parts)
    assert whole.keys() == resumed.keys()
    for key in whole:
        if "save_counter" not in key:
            np.testing.assert_array_equal(whole[key], resumed[key], err_msg=key)
    (momentum_step,) = (whole[key] for key in whole if key.startswith("model/momentum_step/"))
    assert momentum_step == 40
