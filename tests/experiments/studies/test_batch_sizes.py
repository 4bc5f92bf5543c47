"""The comparison of batch sizes: what is trained, chance for diverged runs, table and figure."""

import pytest

from experiments import benchmark
from experiments.builders import classifier
from experiments.studies import batch_sizes


@pytest.mark.slow
def test_each_run_has_its_layer_batch_and_seed_and_is_not_repeated(tmp_path, monkeypatch, capsys):
    calls = []

    def train(experiment, config, folder, seed):
        calls.append((folder.name, config.schedule.batch, seed))
        assert experiment.__module__ == "experiments.builders.classifier" and config.source.path == "cifar10.zip"
        names = {type(layer).__name__ for layer in classifier.model(config, 10)._flatten_layers()}
        assert ("EvoNormS0" in names) == folder.name.startswith("evonorm_s0")
        assert ("BatchNormAct" in names) == folder.name.startswith("bn_relu")
        if config.schedule.batch == 4:
            raise FloatingPointError("the loss is not finite")
        return {"accuracy": 0.5 + 0.02 * seed}

    monkeypatch.setattr(batch_sizes.runs, "train", train)
    arguments = [f"--workdir={tmp_path}", "--source=cifar10.zip", "--seeds", "0", "1", f"--figure={tmp_path / 'a.png'}"]
    benchmark.main(["batch-sizes", *arguments, "--layers", "bn_relu", "evonorm_s0"])
    assert len(calls) == 16 and ("evonorm_s0_128_1", 128, 1) in calls
    # 50 and 52 have mean 51 and standard deviation 1.4; a run that diverges has the accuracy of chance, 10 %.
    row = "51.0 ± 1.4 | 51.0 ± 1.4 | 51.0 ± 1.4 | 10.0 ± 0.0 |"
    out = capsys.readouterr().out
    assert f"| BatchNorm-ReLU | {row}" in out and f"| EvoNorm-S0 | {row}" in out and "| FRN | - | - | - | - |" in out
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    benchmark.main(["batch-sizes", *arguments, "--layers", "bn_relu"])
    assert len(calls) == 16
    with pytest.raises(SystemExit):
        benchmark.main(["batch-sizes", f"--workdir={tmp_path}"])
