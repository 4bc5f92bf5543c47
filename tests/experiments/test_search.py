"""The search program: its configs, its report on a study with a toy instead of training, and a tiny search."""

import dataclasses
import datetime
import importlib
import json
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

import tf_evonorm
from experiments import search
from experiments.builders import study as builder
from experiments.launch.session import Session
from experiments.studies import search_methods
from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.space.graph import BASELINES, Graph
from tf_evonorm.search.study import report, results
from tf_evonorm.search.study.evolution import Rules
from tf_evonorm.search.study.study import Record, Study
from tf_evonorm.search.study.workers import work
from tf_evonorm.search.trial.outcomes import Outcome
from tf_evonorm.search.trial.rejection import Quality, Stability

NAMES = ("evonorm_b_cifar10", "evonorm_s_cifar10", "evonorm_b_small", "evonorm_s_small")


def config_of(name, variant=""):
    return importlib.import_module(f"experiments.configs.search.{name}").get_config(variant)


@pytest.fixture(scope="module")
def toy_study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    study = Study(f"sqlite:///{folder}/study.db", ("a", "b"), 20, Rules(initial=3, newcomers=0.2))

    def toy(graph):
        live = len(graph.live)
        seconds = {"training": 10.0, "tracing": 2.0}
        return (
            Outcome(None, "quality", {}, seconds) if live % 3 == 0 else Outcome((live / 20, 1 / live), "", {}, seconds)
        )

    work(study, toy)
    return study, str(folder)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", ["", "smoke"])
def test_every_section_is_understood(name, variant, tmp_path):
    config = config_of(name, variant)
    study = builder.open_study(config, str(tmp_path))
    assert study.checks.batch == ("_s_" in name)
    images = builder.split(
        np.zeros([9, 32, 32, 3]), np.arange(9), np.zeros([1, 32, 32, 3]), np.zeros(1, int), 0, False, held_out=2
    )
    candidate = builder.candidate(config, images)
    assert isinstance(candidate.quality, Quality) and isinstance(candidate.stability, Stability)
    assert [anchor.name for anchor in candidate.anchors] == list(study.anchors)
    if not variant:
        steps = 150 if "small" in name else 100
        assert (candidate.quality.steps, candidate.quality.accuracy, candidate.stability.limit) == (steps, 0.2, 1e8)
        paper = {"evonorm_b_cifar10": (2000, "constant"), "evonorm_s_cifar10": (5000, "cosine")}
        if name in paper:
            assert (candidate.training.steps, candidate.training.schedule) == paper[name]
            assert (candidate.training.batch, candidate.training.crop, candidate.training.rate) == (128, 24, 0.1)
    longer = builder.candidate(config, images, dict(config.rerank.training))
    assert longer.training.steps == config.rerank.training.steps
    with pytest.raises(ValueError, match="a study is one experiment"):
        config.training.rate = 0.7
        builder.open_study(config, str(tmp_path))


def test_learning_curves_are_an_option_and_another_experiment(tmp_path):
    images = builder.split(
        np.zeros([9, 32, 32, 3]), np.arange(9), np.zeros([1, 32, 32, 3]), np.zeros(1, int), 0, False, held_out=2
    )
    for name in NAMES:
        assert builder.candidate(config_of(name), images).curve is None
    config = config_of("evonorm_b_small")
    builder.open_study(config, str(tmp_path))
    del config.curve  # as in configs of earlier versions
    builder.open_study(config, str(tmp_path))
    config.curve = {"steps": (20, 40), "limits": {"resnet": (2.2, 2.0)}}
    assert builder.candidate(config, images).curve.limits == {"resnet": (2.2, 2.0)}
    with pytest.raises(Mistake, match=r"a study is one experiment. Received .* with curve: None -> "):
        builder.open_study(config, str(tmp_path))
    config.curve.steps = (20,)
    with pytest.raises(Mistake, match=r"curve.*limits must have one loss for each of the 1 steps"):
        builder.candidate(config, images)


def test_wrong_names_are_mistakes(tmp_path):
    config = config_of("evonorm_b_small")
    for section, key, value, message in (
        ("anchors", "kind", "big", r"config.anchors.kind must be paper or small. Received kind='big'"),
        ("anchors", "names", ("vgg",), r"config.anchors.names must be of resnet"),
        ("rules", "method", "best", r"method must be one of"),
        ("checks", "nan", True, r"config.checks holds arguments of Checks"),
        ("space", "without", ("all",), r"by must be one of"),
    ):
        config = config_of("evonorm_b_small")
        config[section][key] = value
        with pytest.raises(ValueError, match=message):
            work(builder.open_study(config, str(tmp_path / section)), lambda graph: Outcome((0, 0, 0)), limit=1)
    with pytest.raises(ValueError, match="held_out must leave images of 9"):
        builder.split(np.zeros(9), np.zeros(9), np.zeros(1), np.zeros(1), 0, False, held_out=9)


def test_the_split_keeps_images_apart():
    train, test = np.arange(50), np.arange(50, 60)
    for rerank in (False, True):
        images = builder.split(train, train % 5, test, test % 5, 3, rerank, held_out=10)
        learned, measured = set(images.train), set(images.held_out)
        assert not learned & measured and images.num_classes == 5
        assert measured == set(test) if rerank else learned | measured == set(train)
        assert (images.train_labels == images.train % 5).all() and (images.held_out_labels == images.held_out % 5).all()


@pytest.fixture(scope="module")
def rejecting(shared_data, tmp_path_factory):
    """The small search's candidate on real images, with both tests in all anchors and no training after them."""
    config = config_of("evonorm_b_small")
    config.source.path = str(shared_data("cifar10/cifar10_jpeg.zip"))
    config.training.steps, config.stability.anchors = config.quality.steps, ()
    folder = str(tmp_path_factory.mktemp("rejecting"))
    return builder.candidate(config, builder.images(config, folder))


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(BASELINES))
def test_baselines_pass_both_tests_in_every_small_anchor(rejecting, name):
    outcome = rejecting(BASELINES[name])
    assert outcome.rejected == "" and min(outcome.scores) > 0.2
    norms = [value for key, value in outcome.numbers.items() if key.endswith("stability norm")]
    assert len(norms) == 3 and max(norms) < 1e4  # far from 1e8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("add(0,1)", ["not finite while training", "stability"]),  # the identity
        ("max(0,1)", ["stability", "quality"]),  # ReLU without a normalization
        ("exp(0) exp(4) exp(5)", ["not finite at the first pass"]),
        ("mul(0,0) mul(4,0)", ["not finite at the first pass"]),  # x**3
        ("square(0) square(4)", ["not finite at the first pass"]),  # x**4
        ("mul(0,2)", ["logits all alike"]),  # 0 behind the first layer
    ],
)
def test_bad_layers_fall_in_each_small_anchor_alone(rejecting, text, reasons):
    for anchor in rejecting.anchors:
        outcome = dataclasses.replace(rejecting, anchors=(anchor,))(Graph.read(text))
        assert outcome.scores is None and outcome.rejected in reasons, anchor.name


def test_protections_are_one_for_layer_and_checks():
    found = builder.protection({"division_epsilon": 0.5, "epsilon": 0.1, "groups": 2})
    assert (found.division, found.moments, found.logarithm) == (0.5, 0.1, 1e-5)


def test_the_progress_line(toy_study):
    study, _ = toy_study
    line = results.progress(study, 40.0)
    good = results.passed(study)
    best = max(record.scores[0] for record in good)
    assert f"passed {len(good)}, quality {20 - len(good)}, best a {best:.3f}" in line
    assert line.endswith("40/h, 0.0 h left")


def test_the_report_is_one_page_with_its_figures(toy_study):
    study, folder = toy_study
    rows = [{"name": "bn_relu", "graph": str(BASELINES["bn_relu"]), "accuracy": [[0.5, 0.7], [0.6, 0.7]]}]
    for name, content in (("rerank", rows), ("baselines", {"b0": [0.25, 0.75]})):
        with open(f"{folder}/{name}.json", "w") as file:
            json.dump(content, file)
    with open(report.report(study, folder)) as file:
        page = file.read()
    assert page.count("data:image/png;base64,") == 4 and "http" not in page
    best = results.best(study, 10)
    assert page.count("data:image/svg+xml;base64,") == len(best) + 1 and 'alt="family tree"' in page
    assert all(f'alt="candidate {member.key}"' in page for member in best)
    for name in ("rejected", "progress", "accuracy", "anchors"):
        assert tf.io.decode_png(tf.io.read_file(f"{folder}/report/{name}.png")).shape[0] > 100
    # 20 candidates of 12 seconds, of which 10 are training; and what checks and proposals took this machine.
    spent = results.seconds_by_phase(results.timeline(study))
    assert (spent["training"], spent["tracing"]) == (200, 40) and spent["proposing"] > 0
    total = sum(spent.values())
    assert f"candidates per core-hour<td>{20 * 3600 / total:.0f}" in page
    for phase in ("training", "tracing", "proposing"):
        assert f"{phase} {100 * spent[phase] / total:.0f} %" in page
    assert "<td>0.550 ± 0.071<td>0.700 ± 0.000<td>0.625" in page
    assert "<td>b0<td>baseline<td>0.250<td>0.750<td>0.500" in page
    winner = results.best(study, 1)[0]
    assert np.mean(winner.scores) == max(np.mean(record.scores) for record in results.passed(study))
    assert f"<td>{winner.key}<td>" in page


def test_baselines_are_trained_as_candidates_are_and_once(monkeypatch, tmp_path):
    calls = []

    class Toy:
        seed = 3

    def repeated(graph, candidate, seeds):
        calls.append((graph, candidate.seed, list(seeds)))
        return np.array([[0.1 * len(calls), 0.5]])

    monkeypatch.setattr(results, "repeated", repeated)
    found = results.train_baselines(Toy(), str(tmp_path))
    assert calls == [(BASELINES[name], 3, [3]) for name in results.COMPARED]
    assert found["gn_relu"] == [0.2, 0.5]
    assert results.train_baselines(Toy(), str(tmp_path)) == found and len(calls) == 4


def done(number, worker, start, end, seconds, scores=None, **more):
    """A finished candidate, times in seconds."""
    at = [datetime.datetime(2026, 1, 1) + datetime.timedelta(seconds=second) for second in (start, end)]
    given = {
        "parent": None,
        "reason": "" if scores else "quality",
        "cached": None,
        "skipped": {},
        "numbers": {},
        **more,
    }
    state = "passed" if scores else "rejected"
    return Record(
        number, BASELINES["b0"], state=state, scores=scores, seconds=seconds, worker=worker, attempts=1, started=at[0],
        finished=at[1], **given,
    )  # fmt: skip


class Recorded:
    """A study with given candidates."""

    def __init__(self, *records):
        self.records = lambda: list(records)


def test_searches_are_compared_at_equal_compute(tmp_path):
    first = Recorded(
        done(0, "a", 0, 10, {"training": 10.0}, (0.2, 0.4), skipped={"flat": 3}),
        done(1, "b", 0, 6, {"quality": 6.0}),  # ended before number 0: 6 core-seconds by then, 16 when number 0 ends
        done(2, "a", 14, 20, {"quality": 6.0}),  # 4 between the two of worker a
        done(3, "a", 20, 20, {}, (0.2, 0.4), cached=0),
    )
    line = results.timeline(first)
    assert [(spent, record.number) for spent, record in line] == [(6, 1), (16, 0), (26, 2), (26, 3)]
    assert results.seconds_by_phase(line) == {"training": 10, "quality": 12, "proposing": 4}
    second = results.timeline(Recorded(done(0, "c", 0, 20, {"training": 20.0}, (0.9, 0.7))))
    lines = search_methods.within_equal_compute([line, second])
    assert [[record.number for _, record in part] for part in lines] == [[1, 0], [0]]
    table = search_methods.text(["random", "evolution"], [line, second]).splitlines()[2:]
    assert table == [
        "| random | 0.01 | 7 | 3 | 415 | 1 | 1 | 0.300 | 0.300 |",
        "| evolution | 0.01 | 1 | 1 | 180 | 1 | 0 | 0.800 | 0.800 |",
    ]
    # In hours: three tried ones took 22, the passed one 10 and those that fell in the quality test 6 each.
    hours = [(3600 * spent, r._replace(seconds={k: 3600 * v for k, v in r.seconds.items()})) for spent, r in line]
    assert search_methods.shares(hours).splitlines()[2:] == [
        "| check: flat | 3 | 42.9 |  | 22.00 |",
        "| check: computes the same as one that passed | 1 | 14.3 |  | 10.00 |",
        "| quality | 2 | 28.6 | 21600.0 | 8.00 |",
        "| passed | 1 | 14.3 | 36000.0 | 0.00 |",
    ]
    assert search_methods.phases(line) == (
        "quality 46.2 %, training 38.5 %, proposing 15.4 %; per proposed graph checks 0 ms and proposing 571 ms"
    )
    rows = [{"name": "b0", "graph": "", "accuracy": [[0.5, 0.7], [0.6, float("nan")]]}]
    assert "| b0 | 55.0 ± 7.1 | 35.0 ± 49.5 | 45.0 |" in search_methods.reranked("random", ("a", "b"), rows)
    search_methods.draw(
        ["random", "evolution"], [line, second], ("a", "b"), {"b0": [0.3, 0.3]}, str(tmp_path / "s.png")
    )
    assert (tmp_path / "s.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.slow
def test_a_search_from_start_to_a_layer(tmp_path):
    """A worker with its driver, the report, the best trained again, the winner in user code."""
    command = [sys.executable, "-m", "experiments.search", f"--workdir={tmp_path}", "--workers=1"]
    command += ["--config=experiments/configs/search/evonorm_b_small.py:smoke", "--config.anchors.names=('resnet',)"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Dask: scheduler tcp://127.0.0.1:" in run.stdout and "dashboard http://127.0.0.1:" in run.stdout
    assert (tmp_path / "report" / "index.html").exists()
    config = config_of("evonorm_b_small", "smoke")
    config.anchors.names = ("resnet",)
    for mode in ("rerank", "export"):
        search.main(Session(config, str(tmp_path), mode))
    rows = json.loads((tmp_path / "rerank.json").read_text())
    assert {"bn_relu", "gn_relu", "b0", "s0"} < {row["name"] for row in rows}
    norm_act = tf_evonorm.layer_from_graph(tmp_path / "best.json")
    assert norm_act()(np.ones([2, 3, 3, 4], np.float32)).shape == (2, 3, 3, 4)
    served = tf.saved_model.load(str(tmp_path / "best_model"))
    assert served(tf.zeros([1, 32, 32, 3])).shape[0] == 1
    assert set(json.loads((tmp_path / "baselines.json").read_text())) == {"bn_relu", "gn_relu", "b0", "s0"}
    study = builder.open_study(config, str(tmp_path))
    assert len(results.finished(study)) == config.study.candidates
    search_methods.main([f"--searches={tmp_path}", f"--figure={tmp_path / 'search.png'}"])
    assert (tmp_path / "search.png").exists()
    assert any(str(record.graph.pruned()) == str(Graph.load(tmp_path / "best.json")) for record in study.records())


@pytest.mark.parametrize(
    "kills", [pytest.param(2, marks=pytest.mark.slow), pytest.param(12, marks=pytest.mark.thorough)]
)
def test_a_killed_driver_loses_nothing(tmp_path, kills):
    """The real search; with the driver, its worker ends too, and the lease of its candidate runs out."""
    config = config_of("evonorm_b_small", "smoke")
    config.anchors.names, config.study.candidates = ("resnet",), 2 * kills + 2
    command = [sys.executable, "-m", "experiments.search", f"--workdir={tmp_path}", "--workers=1"]
    command += ["--config=experiments/configs/search/evonorm_b_small.py:smoke", "--config.anchors.names=('resnet',)"]
    command += [f"--config.study.candidates={config.study.candidates}", "--config.study.lease=10.0"]
    rng, known = random.Random(kills), {}
    for done in range(kills + 1):
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while done < kills and driver.poll() is None and len(finished(config, tmp_path)) <= len(known):
            time.sleep(0.5)
        if done < kills:
            time.sleep(rng.uniform(0, 1))
            driver.kill()
        error = driver.communicate(timeout=600)[1].decode()
        records = finished(config, tmp_path)
        assert all(records[number] == record for number, record in known.items())
        known = records
    assert driver.returncode == 0, error[-2000:]
    assert len(known) == config.study.candidates
    assert all(record.state != "running" for record in builder.open_study(config, str(tmp_path)).records())


def finished(config, folder):
    """number -> record of what is done in a folder."""
    if not (folder / "study.db").exists():
        return {}
    return {record.number: record for record in results.finished(builder.open_study(config, str(folder)))}


def test_a_search_moves_to_another_folder_as_one_file(tmp_path, capsys):
    config = config_of("evonorm_b_small")
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    study = builder.open_study(config, here)
    work(study, lambda graph: Outcome((0.1 * len(graph.live), 0.2, 0.3)), limit=4)
    search.main(Session(config, here, "dump"))
    search.main(Session(config, there, "restore"), file=f"{here}/study.json")
    assert builder.open_study(config, there).records() == study.records()
    count = len(study.records())
    assert capsys.readouterr().out == f"{here}/study.json: {count} candidates\n" * 2
    config.training.rate = 0.7
    with pytest.raises(Mistake, match="a study is one experiment"):
        search.main(Session(config, str(tmp_path / "other"), "restore"), file=f"{here}/study.json")


def test_mistakes_are_reported_before_anything_starts(tmp_path):
    config = config_of("evonorm_b_small")
    config.source.path = str(tmp_path / "nothing")
    with pytest.raises(Mistake, match=r"config\.source: images come from .* where there is nothing"):
        search.main(Session(config, str(tmp_path), "search"), 1)
    with pytest.raises(ValueError, match=r"--workers must be 1 to .* Received --workers=99"):
        search.main(Session(config, str(tmp_path), "search"), 99)
