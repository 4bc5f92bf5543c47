"""The comparison of pretext tasks: table and figure of given numbers, no run is repeated, a tiny comparison."""

import contextlib
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import benchmark
from experiments.configs.pretrain import compare_r18_photos
from experiments.studies import pretext_tasks, runs


def written(folder, numbers):
    for (row, seed, measure), value in numbers.items():
        (folder / f"{row}-{seed}").mkdir(exist_ok=True)
        (folder / f"{row}-{seed}" / f"{measure}.json").write_text(json.dumps(value))


def test_table_and_figure(tmp_path):
    assert set(pretext_tasks.TASKS) == {"scratch", *compare_r18_photos.TASKS}
    # 10, 12 and 14 have mean 12 and standard deviation 2.
    numbers = {("pixpro@20", seed, "probe"): value for seed, value in ((10, 0.14), (2, 0.12), (0, 0.10))}
    written(tmp_path, {**numbers, ("scratch", 0, "linear"): 0.085, ("byol@20", 1, "probe"): 0.5})
    rows = pretext_tasks.rows(pretext_tasks.TASKS, [20])
    table = runs.Runs(tmp_path, pretext_tasks.PATTERN).results(rows, pretext_tasks.MEASURES)
    assert table["pixpro@20", "probe"] == [0.10, 0.12, 0.14] and ("pixpro@20", "knn") not in table
    lines = pretext_tasks.text(table, [20]).splitlines()[2:]
    assert dict(line.strip("| ").split(" | ", 1) for line in lines) == {
        **{title: "- | - | - | -" for title in pretext_tasks.TASKS.values()},
        "scratch": "- | 8.5 | - | -",
        "BYOL": "- | - | 50.0 | -",
        "PixPro": "- | - | 12.0 ± 2.0 | -",
    }
    pretext_tasks.draw(table, 20, str(tmp_path / "figure.png"))
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"


def test_lengths_are_rows_and_lines(tmp_path, monkeypatch):
    numbers = {(f"byol@{epochs}", seed, "knn"): epochs / 100 + seed / 10 for epochs in (6, 20) for seed in (0, 1)}
    written(tmp_path, {**numbers, ("scratch", 0, "knn"): 0.05, ("byol@20", 0, "detection"): 0.7})
    monkeypatch.setattr(pretext_tasks, "score", lambda *_: pytest.fail("nothing is left to run"))
    record, figure = tmp_path / "record.json", tmp_path / "figure.png"
    arguments = [f"--workdir={tmp_path}", "--source=x", "--records=y", "--seeds", "0", "--measures", "knn"]
    arguments += ["--epochs", "6", "20", f"--record={record}", f"--figure={figure}", "--tasks", "byol", "scratch"]
    benchmark.main(["pretext", *arguments])
    table = runs.read(record)
    assert table["byol@6", "knn"] == pytest.approx([0.06, 0.16]) and table["byol@20", "detection"] == [0.7]
    text = pretext_tasks.text(table, [6, 20])
    assert "| BYOL, 20 epochs | 25.0 ± 7.1 | - | - | - | 70.0 |" in text
    drawn = []
    monkeypatch.setattr(pretext_tasks.runs, "figure", lambda *_, **settings: _shown(drawn))
    pretext_tasks.draw_lengths(table, [6, 20], "unused.png")
    lines = {line.get_label(): line.get_xydata().tolist() for line in drawn[0].lines}
    assert lines["BYOL"] == [[6, pytest.approx(11)], [20, pytest.approx(25)]]
    assert lines["scratch"] == [[6, 5], [20, 5]]


@contextlib.contextmanager
def _shown(drawn):
    drawn.extend(Figure().subplots(1, 2))
    yield drawn


@pytest.fixture
def calls(monkeypatch):
    """What would have been trained: (builder, config, folder, seed)."""
    started = []

    def train(experiment, config, folder, seed, mode="train_and_eval"):
        started.append((experiment.__module__.rpartition(".")[2], config, folder, seed))
        folder.mkdir(parents=True)
        (folder / "ckpt-1.index").write_text("")
        (folder / "backbone.index").write_text("")
        return {"accuracy": 0.2, "mean_iou": 0.3, "AP50": 0.4}

    monkeypatch.setattr(pretext_tasks.runs, "train", train)
    monkeypatch.setattr(pretext_tasks, "neighbours", lambda config, seed: 0.1)
    return started


def test_each_encoder_is_trained_once_and_evaluated_by_all_measures(tmp_path, calls, capsys):
    arguments = [
        f"--workdir={tmp_path}",
        "--source=photos.zip",
        "--records=camvid",
        "--epochs=3",
        "--width=0.25",
        "--seeds",
        "1",
        "--tasks",
    ]
    benchmark.main(["pretext", *arguments, "scratch", "fpn"])
    assert [call[0] for call in calls] == [
        "classifier",
        "detector",
        "detector",
        "pretext",
        "classifier",
        "detector",
        "detector",
    ]
    assert {call[3] for call in calls} == {1}
    assert [call[1].init for call in calls if call[0] != "pretext"] == [""] * 3 + [
        str(tmp_path / "fpn@3-1/pretrain/backbone")
    ] * 3
    linear, probe, finetuned, pretraining = (call[1] for call in calls[:4])
    assert [one.backbone.width for one in (linear, probe, finetuned, pretraining)] == [0.25] * 4
    assert linear.source.path == pretraining.source.path == "photos.zip" and pretraining.schedule.epochs == 3
    assert (
        linear.freeze.mode == probe.freeze.mode == "inference"
        and "freeze" not in finetuned
        and "pyramid" in pretraining
    )
    assert probe.train_data.input_path == finetuned.train_data.input_path == "camvid/train-*.tfrecord"
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.index")] == [
        "fpn@3-1/pretrain/backbone.index"
    ]
    assert "| PixPro on FPN | 10.0 | 20.0 | 30.0 | 30.0 |" in capsys.readouterr().out
    (tmp_path / "fpn@3-1/probe.json").unlink()
    (tmp_path / "fpn@3-1/probe").rename(tmp_path / "gone")
    benchmark.main(["pretext", *arguments, "scratch", "fpn"])
    assert len(calls) == 8 and calls[-1][2] == tmp_path / "fpn@3-1/probe"
    benchmark.main(["pretext", *arguments, "fpn", "--boxes=bccd", "--photos=all", "--judging=0.5"])
    detection = calls[-1][1]
    assert detection.scores.annotation_file == "bccd/val_annotations.json"
    assert detection.schedule.steps == 300 and detection.schedule.drops == (250,)
    benchmark.main(["pretext", *arguments, "byol", "--photos=all", "--measures", "knn"])
    assert calls[-1][1].source.path == "all" and calls[-1][1].source.split is None
    with pytest.raises(SystemExit):
        benchmark.main(["pretext", f"--workdir={tmp_path}"])


@pytest.mark.slow
def test_a_tiny_comparison(tmp_path, capsys):
    arguments = [
        f"--workdir={tmp_path}",
        "--smoke",
        "--seeds",
        "0",
        "--tasks",
        "fpn",
        f"--figure={tmp_path / 'all.png'}",
    ]
    pretext_tasks.main(arguments)
    first = capsys.readouterr().out
    assert "fpn, seed 0: pre-training" in first and (tmp_path / "all.png").exists()
    study = runs.Runs(tmp_path, pretext_tasks.PATTERN)
    for measure in set(pretext_tasks.MEASURES) - {"detection"}:
        (score,) = study.results(["fpn@20"], [measure])["fpn@20", measure]
        assert 0 <= score <= 1 and np.isfinite(score)
    pretext_tasks.main(arguments)
    again = capsys.readouterr().out
    assert "seed" not in again and again.strip() in first
