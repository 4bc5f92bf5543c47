"""The calibration of learning curves on candidates whose losses are written by hand."""

import json

import pytest
from ml_collections import ConfigDict

from experiments import benchmark
from experiments.studies import learning_curves
from tf_evonorm.search.space.graph import BASELINES
from tf_evonorm.search.study.study import Record
from tf_evonorm.search.trial.rejection import LearningCurve


def record(state, **curves):
    numbers = {f"{anchor} losses": losses for anchor, losses in curves.items()}
    return Record(0, BASELINES["b0"], None, state, None, "", None, {}, numbers, {}, "w", 1, None, None)


PASSED = [
    record("passed", a=[2.0, 1.5, 1.0], b=[2.2, 2.0, 1.0]),
    record("passed", a=[2.2, 1.2, 1.1], b=[2.1, 1.0, 0.5]),
]


def test_limits_are_the_highest_losses_of_those_that_passed():
    found = learning_curves.calibrated([*PASSED, record("rejected", a=[9.0, 9.0])], (10, 20), margin=0.1)
    assert found.steps == (10, 20)
    assert found.limits == {"a": pytest.approx((2.3, 1.6)), "b": pytest.approx((2.3, 2.1))}


def test_shares_by_hand():
    curve = LearningCurve((10, 20), {"a": (2.1, 1.5), "b": (2.3, 1.9)})
    records = [
        *PASSED,  # the first is lost in b at 20, the second in a at 10
        record("rejected", a=[2.0, 1.6, 1.6]),  # caught at 20 of 30
        record("rejected", a=[2.0, 1.4, 1.3]),
        record("rejected", a=[float("nan")]),  # caught at 10 of 10
    ]
    assert [learning_curves.stop(curve, one) for one in records] == [("b", 20), ("a", 10), ("a", 20), None, ("a", 10)]
    found = learning_curves.share(curve, records)
    assert found[:4] == (2, 2, 3, 2)
    # Saved: 10 of b; 20 of a and all 30 of b; 10 of a. Trained: 60 + 60 + 30 + 30 + 10.
    assert found.saved == pytest.approx((10 + 50 + 10) / 190)


def test_candidates_that_ended_before_the_first_step_do_not_count():
    curve = LearningCurve((20,), {"a": (1.0,)})
    assert learning_curves.share(curve, [record("rejected", a=[9.0])]) == (0, 0, 0, 0, 0.0)


def test_halves_have_as_many_of_each_kind():
    records = [record("passed", a=[float(n)]) for n in range(10)] + [record("rejected", a=[float(n)]) for n in range(7)]
    first, second = learning_curves.halves(records)
    assert [sum(r.state == "passed" for r in half) for half in (first, second)] == [5, 5]
    assert len(first) + len(second) == 17
    assert not {id(one) for one in first} & {id(one) for one in second}


def test_the_command_prints_a_section_of_a_config(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.json").write_text(json.dumps({}))
    records = [*PASSED, *PASSED, record("rejected", a=[9.0, 9.0]), record("rejected", a=[8.0, 9.0])]
    monkeypatch.setattr(learning_curves, "opened", lambda folder: folder)
    monkeypatch.setattr(learning_curves.results, "finished", lambda study: [*records, record("rejected")])
    benchmark.main(["curves", "--searches", str(tmp_path), "--steps", "10", "20"])
    out = capsys.readouterr().out
    config = ConfigDict()
    exec(out.splitlines()[0], {"config": config})
    curve = LearningCurve(**config.curve)
    assert curve.steps == (10, 20) and set(curve.limits) == {"a", "b"}
    assert "| calibration | 2 | 0 (0.0 %) | 1 | 1 (100.0 %) |" in out
    assert "Only 6 candidates: limits want 1000 or more." in out


@pytest.mark.parametrize(
    "arguments", [["--steps", "15"], ["--steps", "20", "10"], ["--searches", "nowhere"], ["--steps", "0"]]
)
def test_wrong_arguments(tmp_path, arguments, capsys):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SystemExit):
        benchmark.main(["curves", "--searches", str(tmp_path), *arguments])
    assert "Received" in capsys.readouterr().err
