"""The comparison of layers in the generator: table of given results, curves from summaries, figure."""

import json

import pytest
import tensorflow as tf

from experiments import benchmark
from experiments.builders import generator
from experiments.studies import gan_layers as measure

DISTANCE, SCORE = measure.DISTANCE, measure.SCORE


def write(folder, name, result):
    (folder / name).mkdir()
    (folder / name / "result.json").write_text(json.dumps(result))


def test_the_table_has_means_deviations_and_diverged_runs(tmp_path):
    for seed, distance in enumerate((10.0, 12.0)):
        write(tmp_path, f"bn_relu_{seed}", {DISTANCE: distance, SCORE: 3.0, "curve": [[0, 90.0], [5, distance]]})
    write(tmp_path, "bn_relu_2", {"diverged": "at step 3", "curve": []})
    write(tmp_path, "evonorm_s0_0", {DISTANCE: 9.0, SCORE: 3.5, "curve": [[5, 9.0]]})
    (tmp_path / "bn_relu_0" / "pictures").mkdir()
    for step in (500, 1500):
        grid = tf.io.encode_png(tf.zeros([20, 30, 3], tf.uint8))
        tf.io.write_file(str(tmp_path / "bn_relu_0" / "pictures" / f"samples-{step}.png"), grid)
    found = measure.results(tmp_path)
    assert measure.samples(tmp_path, "bn_relu").name == "samples-1500.png"
    assert measure.samples(tmp_path, "evonorm_s0") is None
    rows = measure.text(found).splitlines()[2:]
    assert rows == [  # the deviation of 10 and 12 is the root of 2
        "| BatchNorm-ReLU | 11.00 ± 1.41 | 3.00 ± 0.00 | 10.00  12.00 | 1 of 3 |",
        "| EvoNorm-S0 | 9.00 | 3.50 | 9.00 | 0 of 1 |",
    ]
    measure.draw(found, tmp_path, str(tmp_path / "curves.png"))
    assert tf.io.decode_png(tf.io.read_file(str(tmp_path / "curves.png"))).shape[2] == 4


@pytest.mark.slow
def test_each_run_has_its_layer_and_its_seed(tmp_path, monkeypatch, capsys):
    def train(experiment, config, folder, seed):
        assert (experiment.__module__, config.source.path) == ("experiments.builders.generator", "cifar10.zip")
        assert (config.scores.classifier, config.schedule.steps, folder.parent) == ("judge", 7, tmp_path)
        names = {type(layer).__name__ for layer in generator.generator(config, 10)._flatten_layers()}
        assert ("EvoNormS0" in names) == folder.name.startswith("evonorm_s0")
        assert ("GroupNormAct" in names) == folder.name.startswith("gn_relu")
        if seed:
            raise FloatingPointError("collapsed at step 3")
        return {DISTANCE: 4.0, SCORE: 2.0, "other": 1.0}

    monkeypatch.setattr(measure.runs, "train", train)
    arguments = [
        f"--workdir={tmp_path}",
        "--source=cifar10.zip",
        "--classifier=judge",
        "--steps=7",
        "--seeds",
        "0",
        "1",
    ]
    for _ in range(2):  # the second time everything is read
        benchmark.main(["synthesis", *arguments, "--layers", "evonorm_s0", "gn_relu"])
        assert "| EvoNorm-S0 | 4.00 | 2.00 | 4.00 | 1 of 2 |" in capsys.readouterr().out
        monkeypatch.setattr(measure.runs, "train", None)


def test_a_curve_is_read_from_summaries(tmp_path):
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        for step in (2, 4):
            tf.summary.scalar("distance", step / 2, step)
            tf.summary.scalar("other", 0.0, step)
    assert measure.curve(tmp_path, "distance") == [(2, 1.0), (4, 2.0)]
