"""The demo: its plan, its table, and all of it at a tiny size."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from experiments import demo
from experiments.configs import demo as demo_config
from experiments.studies import few_labels


def test_the_run_has_the_steps_of_the_config_whatever_the_number_of_images(tmp_path):
    from experiments.launch.schedule import Schedule

    rng = np.random.default_rng(0)
    for i in range(7):
        Image.fromarray(rng.integers(0, 256, [40, 50, 3], np.uint8)).save(tmp_path / f"{i}.png")
    for images, batch in ((None, 4), (str(tmp_path), 4)):
        config = demo_config.get_config("smoke")
        source = demo.plan(config, images)
        assert Schedule(images=source.num_examples, **config.schedule).steps == config.steps
        assert config.schedule.batch == batch
    config = demo_config.get_config()
    source = demo.plan(config, str(tmp_path))
    assert config.schedule.batch == 7 and config.views.recipe == "BYOL"
    assert Schedule(images=source.num_examples, **config.schedule).steps == config.steps


def test_the_table_says_mean_spread_and_gain():
    lines = demo.table_of({"from scratch": [0.50, 0.54], "pre-trained": [0.60, 0.66]}).splitlines()
    # By hand: mean 52, deviation sqrt(((50-52)^2 + (54-52)^2) / 1) = 2.83; 63 and 4.24; gains 10 and 12, 1.41.
    assert lines[2:] == [
        "| from scratch | 52.0 ± 2.8 | 50.0  54.0 |",
        "| pre-trained | 63.0 ± 4.2 | 60.0  66.0 |",
        "| gain, same labels | +11.0 ± 1.4 | +10.0  +12.0 |",
    ]


def test_labelled_scenes_are_repeatable_and_mark_objects():
    images, maps = few_labels.labelled_scenes(3, 32, seed=5)
    again, _ = few_labels.labelled_scenes(3, 32, seed=5)
    other, _ = few_labels.labelled_scenes(3, 32, seed=6)
    np.testing.assert_array_equal(images, again)
    assert (images != other).any()
    assert images.shape == (3, 32, 32, 3) and maps.shape == (3, 32, 32) and set(np.unique(maps)) == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("own_images", [False, True])
def test_the_whole_demo(tmp_path, own_images):
    command = [sys.executable, "-m", "experiments.demo", f"--workdir={tmp_path}/out"]
    command += ["--config=experiments/configs/demo.py:smoke"]
    if own_images:
        (tmp_path / "mine").mkdir()
        for i in range(9):
            pixels = np.random.default_rng(i).integers(0, 256, [40, 50, 3], np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / f"{i}.jpg")
        command += [f"--images={tmp_path}/mine"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert run.returncode == 0, run.stderr
    assert ("| gain, same labels |" in run.stdout) != own_images
    for place in ("demo.png", "saved_model", "pretrain/backbone.index", "pretrain/config.json", "pretrain/train"):
        assert tf.io.gfile.exists(f"{tmp_path}/out/{place}"), place
    assert Image.open(tmp_path / "out" / "demo.png").width == 800
    served = tf.saved_model.load(f"{tmp_path}/out/saved_model").signatures["serving_default"]
    assert served(image_bytes=tf.constant([_png()]))["pooled"].shape[0] == 1


def _png():
    return tf.io.encode_png(np.zeros([20, 30, 3], np.uint8)).numpy()
