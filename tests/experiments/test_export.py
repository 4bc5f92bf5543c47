"""The export binary: a run's folder, or a checkpoint with its config, becomes a SavedModel."""

import os
import subprocess
import sys

import examples
import numpy as np
import pytest
import tensorflow as tf

from experiments.builders.pretext import pretext_encoder, pretext_model
from experiments.configs.pretrain import compare_r18_photos, pixpro_r18_photos
from experiments.export import export
from tf_pixpro import load_backbone, save_backbone


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with a latest and a best checkpoint of different weights, its config and both encoders."""
    folder = tmp_path_factory.mktemp("run")
    config = pixpro_r18_photos.get_config("smoke")
    (folder / "config.json").write_text(config.to_json_best_effort())
    latest, best = (pretext_model(config, 4) for _ in range(2))
    tf.train.CheckpointManager(tf.train.Checkpoint(model=latest), str(folder), max_to_keep=1).save()
    save_backbone(best.encoder, str(folder / "best" / "backbone"))
    return str(folder), config, latest.encoder, best.encoder


def answers_as(path, encoder):
    image = tf.random.stateless_uniform([1, 64, 64, 3], (0, 1))
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    answer = tf.saved_model.load(path).signatures["images"](images=image * 255)
    expected = encoder(tf.cast((image - mean) / deviation, tf.float32), training=False)
    return all(np.allclose(answer[level], values, rtol=1e-3, atol=1e-4) for level, values in expected.items())


def test_a_run_its_best_and_a_checkpoint(run, tmp_path):
    folder, config, latest, best = run
    line = export(str(tmp_path / "latest"), workdir=folder)
    assert line.startswith(str(tmp_path / "latest")) and "levels 2, 3, 4, 5 and pooled" in line
    assert answers_as(str(tmp_path / "latest"), latest) and not answers_as(str(tmp_path / "latest"), best)
    export(str(tmp_path / "best"), workdir=folder, best=True, image_size=["32"])
    assert answers_as(str(tmp_path / "best"), best)
    export(str(tmp_path / "other"), checkpoint=os.path.join(folder, "best", "backbone"), config=config)
    assert answers_as(str(tmp_path / "other"), best)


def test_other_formats_of_a_run(run, tmp_path):
    folder, config, latest, _ = run
    line = export(str(tmp_path / "m.safetensors"), workdir=folder, format="safetensors")
    assert line == f"{tmp_path}/m.safetensors: normalized images; levels 2, 3, 4, 5 and pooled"
    other = pretext_encoder(config)
    load_backbone(other, str(tmp_path / "m.safetensors"))
    for got, want in zip(other.get_weights(), latest.get_weights()):
        np.testing.assert_array_equal(got, want)
    examples.photos(tmp_path / "photos.zip")
    given = {"workdir": folder, "format": "tflite", "image_size": ["32"]}
    line = export(str(tmp_path / "m.tflite"), representative=str(tmp_path / "photos.zip"), **given)
    assert "images of 32 x 32, float32 in 0..255" in line
    interpreter = tf.lite.Interpreter(str(tmp_path / "m.tflite"))
    assert np.int8 in {row["dtype"] for row in interpreter.get_tensor_details()}


def test_a_pyramid_is_served_as_its_backbone(tmp_path):
    config = compare_r18_photos.get_config("fpn-smoke")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(config.to_json_best_effort())
    encoder = pretext_encoder(config)
    checkpoint = tf.train.Checkpoint(model=tf.train.Checkpoint(encoder=encoder))  # as a run writes its model
    tf.train.CheckpointManager(checkpoint, str(tmp_path / "run"), max_to_keep=1).save()
    line = export(str(tmp_path / "served"), workdir=str(tmp_path / "run"))
    assert "levels 2, 3, 4, 5 and pooled" in line
    assert answers_as(str(tmp_path / "served"), encoder.backbone)


def test_contradictions_are_reported(run, tmp_path):
    folder, config, *_ = run
    out = str(tmp_path / "out")
    for wrong in (
        {},
        {"workdir": folder, "checkpoint": folder},
        {"checkpoint": folder},
        {"workdir": folder, "config": config},
    ):
        with pytest.raises(ValueError, match="--checkpoint with --config, is needed"):
            export(out, **wrong)
    with pytest.raises(FileNotFoundError, match=r"without config\.json"):
        export(out, workdir=str(tmp_path))
    with pytest.raises(ValueError, match="Received 1,2,3"):
        export(out, workdir=folder, image_size=["1", "2", "3"])


@pytest.mark.slow
def test_a_mistake_is_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.export", f"--workdir={tmp_path}", f"--output={tmp_path}/out"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("export: the folder of a run is needed.")
    assert "Traceback" not in run.stderr
