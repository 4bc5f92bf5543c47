"""The runner of studies: each cell once, interrupted runs, diverging runs, results by seed, tables, figures."""

import statistics

import pytest
import tensorflow as tf

from experiments.studies import runs
from experiments.studies.runs import Runs


@pytest.fixture
def study(tmp_path):
    return Runs(tmp_path, "{row}_{column}_{seed}/result.json")


def test_each_cell_is_measured_once_and_stored(study, capsys):
    calls = []

    def measure(row, column, seed):
        calls.append((row, column, seed))
        return len(calls)

    study.run(measure, ["a", "b"], [0], [1, 2])
    assert calls == [("a", 1, 0), ("a", 2, 0), ("b", 1, 0), ("b", 2, 0)]
    assert capsys.readouterr().out.splitlines()[1] == "a, 2, seed 0"
    study.run(measure, ["a", "b"], [0, 3], [1, 2])
    assert len(calls) == 8 and {seed for *_, seed in calls[4:]} == {3}
    assert study.results(["a", "c"], [1, 2]) == {("a", 1): [1, 5], ("a", 2): [2, 6]}


def test_an_interrupted_study_resumes_where_it_was(study):
    def killed(row, column, seed):
        if row == "b":
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        study.run(killed, ["a", "b"], [0])
    calls = []
    study.run(lambda *cell: calls.append(cell), ["a", "b"], [0])
    assert calls == [("b", "", 0)]


def test_a_run_that_diverges_is_reported_and_has_no_result(study, capsys):
    def diverging(row, column, seed):
        if row == "a":
            raise FloatingPointError("the loss is not finite")
        return 2.0

    study.run(diverging, ["a", "b"], [0], ["first", "second"])
    assert capsys.readouterr().out.count("the loss is not finite") == 1  # the second column of this row is not tried
    assert study.results("ab", ["first", "second"]) == {("b", "first"): [2.0], ("b", "second"): [2.0]}
    with pytest.raises(TypeError):
        study.run(lambda row: 1, ["c"], [0])  # a fault of the program is not taken for divergence


def test_names_that_contain_each_other_are_kept_apart(tmp_path):
    study = Runs(tmp_path, "{row}_{seed}/result.json")
    for row, seed, result in (("b0", 0, "x"), ("b0_relu", 0, "y"), ("b0", 10, "z"), ("b0", 9, "w")):
        study.run(lambda *_, result=result: result, [row], [seed])
    assert study.results(["b0", "b0_relu"]) == {("b0", ""): ["x", "w", "z"], ("b0_relu", ""): ["y"]}


def test_tables(capsys):
    values = [0.10, 0.12, 0.14]
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    assert runs.mean_and_deviation(values, 3) == f"{mean:.3f} ± {deviation:.3f}" == "0.120 ± 0.020"
    assert runs.mean_and_deviation([0.5]) == "0.5" and runs.mean_and_deviation([]) == "-"
    table = runs.grid("layer", {"a": "A", "b": "B"}, {1: "one", 2: "two"}, {("a", 1): values, ("b", 2): [0.5]})
    assert table.splitlines() == [
        "| layer | one | two |",
        "| --- | --- | --- |",
        "| A | 12.0 ± 2.0 | - |",
        "| B | - | 50.0 |",
    ]


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_figure_has_its_panels_and_leaves_pyplot_alone(tmp_path, ending):
    path = str(tmp_path / f"figure.{ending}")
    with runs.figure(path, [2.0, 1.0], 1.5) as (left, right):
        left.plot([0, 1], [0, 1])
        right.plot([0, 1], [1, 0])
    assert tf.io.decode_image(tf.io.read_file(path)).shape[:2] == (165, 330)  # inches times 110


def test_the_command_line(tmp_path, capsys):
    parser = runs.parser("name", "First line.\nSecond.", layers=("a", "b"))
    options = parser.parse_args([f"--workdir={tmp_path}", "--layers", "b", "--seeds", "4"])
    assert (options.workdir, options.layers, options.seeds, options.figure) == (tmp_path, ["b"], [4], None)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--workdir={tmp_path}", "--layers", "c"])
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "First line." in capsys.readouterr().out
