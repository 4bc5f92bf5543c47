"""The fidelity of proxies: each training once, curves of accuracy and cost, Kendall's tau, the record of results."""

import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from experiments import benchmark
from experiments.studies import runs
from experiments.studies import search_fidelity as fidelity
from tf_evonorm.search.trial.anchors import small_anchors
from tf_evonorm.search.trial.proxy_task import Images, Training


@pytest.mark.parametrize("layer", fidelity.LAYERS)
def test_every_layer_can_be_trained(layer):
    make = fidelity.norm_act(layer)
    x = np.random.default_rng(0).normal(size=[4, 6, 6, 8]).astype(np.float32)
    y = make()(x, training=True)
    assert y.shape == x.shape and np.isfinite(y).all()
    assert make(apply_act=False, name="other")(x).shape == x.shape  # after projections


def test_graphs_are_what_their_names_say():
    x = np.random.default_rng(1).normal(1, 2, size=[4, 6, 6, 8])
    normalized = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    grouped = x.reshape(4, 36, 2, 4)
    wanted = {
        "bn_tanh": np.tanh(normalized),
        "bn_linear": normalized,
        "x_over_std_group": (grouped / grouped.std((1, 3), keepdims=True)).reshape(x.shape),
        "x_over_rms_layer": x / np.sqrt(np.square(x).mean((1, 2, 3), keepdims=True)),
        "tanh": np.tanh(x),
        "sigmoid": 1 / (1 + np.exp(-x)),
        "relu": np.maximum(x, 0),
        "identity": x,
    }
    assert wanted.keys() == fidelity.GRAPHS.keys()
    for name, want in wanted.items():
        got = fidelity.norm_act(name)()(x.astype(np.float32), training=True)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4, err_msg=name)


def test_no_proxy_contains_the_networks_of_the_truth():
    made = fidelity.settings()
    assert len(fidelity.LAYERS) >= 16 and len(fidelity.PROXIES) >= 12
    parts = {part for parts in fidelity.PROXIES.values() for part in parts}
    assert all(steps in made[name].steps and name not in fidelity.TRUTH for name, steps in parts)
    assert [made[name].training.schedule for name in fidelity.TRUTH] == ["cosine", "cosine"]
    sizes = {
        name: sum(isinstance(layer, tf.keras.layers.Conv2D) for layer in backbone._flatten_layers())
        for name, backbone in ((name, made[name].anchor.backbone(fidelity.norm_act("relu"))) for name in made)
    }
    assert sizes["truth_resnet"] > sizes["resnet"] and sizes["truth_mobilenet"] > sizes["mobilenet"]
    assert sizes["deep"] == sizes["steep"] > sizes["truth_resnet"]


def images(count=12):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=[count, 12, 12, 3]).astype(np.float32), np.arange(count) % 3
    return Images(x, labels, x, labels, 3)


def test_a_curve_has_accuracy_and_cost_after_each_number_of_steps():
    setting = fidelity.Setting(small_anchors(0.5)[0], Training(steps=2, batch=4, crop=8, rate=0.1), (1, 2))
    found = fidelity.curve(setting, images(), fidelity.norm_act("bn_relu"), 0)
    assert list(found["accuracy"]) == list(found["seconds"]) == ["1", "2"]
    assert all(0 <= value <= 1 for value in found["accuracy"].values())
    assert found["seconds"]["1"] > 0


def test_a_training_that_is_not_finite_has_no_accuracy():
    setting = fidelity.Setting(small_anchors(0.5)[0], Training(steps=3, batch=4, crop=8, rate=1e30), (1, 3))
    found = fidelity.curve(setting, images(), fidelity.norm_act("identity"), 0)
    assert found["accuracy"]["3"] == 0.0


def results_of(proxy, true, training="resnet"):
    """Results of one seed where the proxy and the truth of the first layers have given accuracies."""
    cells = {}
    for layer, brief, long in zip(fidelity.LAYERS, proxy, true):
        steps = {"50": brief, "150": brief, "300": brief}
        cells[layer, training] = [{"accuracy": steps, "seconds": {"50": 1.0, "150": 2.0, "300": 4.0}}]
        for name in fidelity.TRUTH:
            cells[layer, name] = [{"accuracy": {str(fidelity.TRUTH_STEPS): long}, "seconds": {}}]
    return cells


@pytest.mark.parametrize(
    ("proxy", "tau"),
    [
        ([0.1, 0.2, 0.3, 0.4], 1.0),
        ([0.4, 0.3, 0.2, 0.1], -1.0),
        ([0.2, 0.1, 0.3, 0.4], 4 / 6),  # of six pairs one is discordant: (5 - 1) / 6
        ([0.1, 0.1, 0.3, 0.4], 5 / math.sqrt(5 * 6)),  # one pair is tied in the proxy
    ],
)
def test_tau_counts_pairs(proxy, tau):
    rows = fidelity.table(results_of(proxy, [0.3, 0.4, 0.5, 0.6]))
    assert [row["proxy"] for row in rows] == ["resnet, 300 steps", "resnet, 150 steps", "resnet, 50 steps"]
    assert [row["seconds"] for row in rows] == [4, 2, 1]
    assert all(row["tau"] == pytest.approx(tau) for row in rows)


def test_tau_of_the_best_leaves_the_others_out():
    proxy = {"a": 0.5, "b": 0.4, "c": 0.1, "d": 0.2}
    true = {"a": 0.9, "b": 0.8, "c": 0.3, "d": 0.2, "e": 1.0}  # without a score of the proxy
    assert fidelity.agreement(proxy, true) == pytest.approx(4 / 6)
    assert fidelity.agreement(proxy, true, 2) == 1
    # Of c and d, which are tied for the third position, c is taken: (2 - 1) / 3 without ties, d would give 1.
    assert fidelity.agreement({"a": 3, "b": 1, "c": 2, "d": 0}, {"a": 3, "b": 2, "d": 1, "c": 1}, 3) == pytest.approx(
        1 / 3
    )


def test_each_training_runs_once_and_everything_is_recorded(tmp_path, monkeypatch, capsys):
    calls = []

    def curve(setting, images, layer, seed):
        calls.append((setting.anchor.name, images, seed))
        return {
            "accuracy": {str(steps): 0.1 + 0.01 * len(calls) for steps in setting.steps},
            "seconds": {str(steps): 1.0 for steps in setting.steps},
        }

    monkeypatch.setattr(fidelity, "curve", curve)
    monkeypatch.setattr(fidelity.builder, "images", lambda config, folder, rerank: (config.source.path, rerank))
    record = tmp_path / "fidelity.json"
    arguments = ["fidelity", f"--workdir={tmp_path}", "--source=cifar10.zip", "--layers", "bn_relu", "tanh", "relu"]
    benchmark.main([*arguments, "--seeds", "0", f"--record={record}", f"--figure={tmp_path / 'a.png'}"])
    assert len(calls) == 3 * 7
    assert ("truth_resnet", ("cifar10.zip", True), 0) in calls and ("resnet", ("cifar10.zip", False), 0) in calls
    out = capsys.readouterr().out
    assert "| three anchors, 300 steps | 3.0 | 1.00 | 1.00 |" in out and "| relu | " in out
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    study = fidelity.runs.Runs(tmp_path, fidelity.PATTERN)
    assert runs.read(record) == study.results(fidelity.LAYERS, tuple(fidelity.settings()))
    benchmark.main([*arguments, "--seeds", "0", "1", "--trainings", "deep"])
    assert len(calls) == 3 * 7 + 3
    arguments[1] = f"--workdir={tmp_path / 'elsewhere'}"  # where the record is all that there is
    benchmark.main([*arguments, "--seeds", "0", f"--record={record}"])
    assert len(calls) == 3 * 7 + 3


def test_the_documented_figures_are_those_of_the_recorded_results():
    docs = pathlib.Path(__file__).resolve().parents[3] / "docs"
    results = runs.read(docs / "fidelity.json")
    for table in fidelity.text(results).split("\n\n"):
        assert table in (docs / "measurements.md").read_text()
