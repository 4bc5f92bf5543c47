"""The comparison of settings: its changes fit the config, table and record of given numbers, one tiny setting."""

import json

import numpy as np
import pytest

from experiments import benchmark
from experiments.configs.pretrain import compare_r18_photos
from experiments.studies import pretext_settings, pretext_tasks, runs


def test_changes_fit_the_config():
    before = compare_r18_photos.get_config("pixpro")
    for name, (_, changes) in pretext_settings.SETTINGS.items():
        after = pretext_tasks.changed(compare_r18_photos.get_config("pixpro"), changes)
        assert (after.to_dict() != before.to_dict()) == (name not in ("scratch", "default"))
        assert set(after.to_dict()) == set(before.to_dict())
        for key in changes:
            section, _, last = key.partition(".")
            assert not last or last in before[section] or key == "backbone.output_stride", key


def test_table_and_record(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pretext_settings, "judge", lambda *_: pytest.fail("nothing is left to run"))
    cells = [{"knn": value, "std": 0.5, "rank": 8.0} for value in (0.1, 0.12)]
    record, results = tmp_path / "record.json", {("default", "frozen"): cells, ("default", "probe"): [0.3]}
    runs.write(results, record)
    arguments = ["--source=x", "--records=y", f"--record={record}", "--settings", "default", "--seeds", "0"]
    benchmark.main(["settings", f"--workdir={tmp_path / 'runs'}", *arguments])
    shown = capsys.readouterr().out
    assert "| as `compare_r18_photos:pixpro` | 11.0 ± 1.4 | 30.0 | 0.50 ± 0.00 | 8.0 ± 0.0 |" in shown
    assert shown.count("\n") == 3 and runs.read(record) == results
    with pytest.raises(SystemExit):
        benchmark.main(["settings", f"--workdir={tmp_path}", "--source=x"])


def test_a_setting_is_pretrained_once_and_judged(tmp_path, monkeypatch):
    started = []

    def train(experiment, config, folder, seed, mode="train_and_eval"):
        started.append((experiment.__module__.rpartition(".")[2], config, seed))
        folder.mkdir(parents=True)
        (folder / "backbone.index").write_text("")
        return {"mean_iou": 0.3}

    monkeypatch.setattr(runs, "train", train)
    frozen = (np.eye(4, 3), np.arange(4), np.eye(2, 3), np.arange(2))
    monkeypatch.setattr(pretext_tasks, "features", lambda config, seed: frozen)
    arguments = ["--source=photos.zip", "--records=camvid", "--epochs=6", "--seeds", "1", "--settings", "stride_16"]
    benchmark.main(["settings", f"--workdir={tmp_path}", *arguments, "scratch"])
    assert [(name, seed) for name, _, seed in started] == [("pretext", 1), ("detector", 1), ("detector", 1)]
    config = started[0][1]
    assert config.source.path == "photos.zip" and config.source.split == "train"
    assert (config.schedule.epochs, config.backbone.width, config.backbone.output_stride) == (6, 0.25, 16)
    assert [judged.init for _, judged, _ in started[1:]] == [str(tmp_path / "stride_16-1/pretrain/backbone"), ""]


@pytest.mark.slow
def test_a_tiny_setting(tmp_path):
    arguments = [f"--workdir={tmp_path}", "--smoke", "--source=", "--seeds", "0", "--settings", "evonorm_s0"]
    pretext_settings.main(arguments)
    frozen = json.loads((tmp_path / "evonorm_s0-0/frozen.json").read_text())
    assert set(frozen) == {"knn", "std", "rank"} and np.isfinite(list(frozen.values())).all()
    assert 0 <= json.loads((tmp_path / "evonorm_s0-0/probe.json").read_text()) <= 1
