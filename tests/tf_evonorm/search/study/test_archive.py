"""The archive of a study: the same candidates after a restore, the same search from there, files that are refused."""

import json
import math

import pytest

from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.study import archive
from tf_evonorm.search.study.evolution import Rules
from tf_evonorm.search.study.study import ATTEMPTS, WAIT, Study
from tf_evonorm.search.study.workers import work
from tf_evonorm.search.trial.outcomes import Outcome


class Clock:
    """Seconds that pass when set."""

    now = 1000.0

    def __call__(self):
        return self.now


def make(url, candidates, **options):
    return Study(url, ("a", "b"), candidates, Rules(initial=5, window=30, newcomers=0.3), lease=10.0, **options)


def toy(graph):
    """Scores that depend on the graph alone; a third is rejected."""
    size = len(graph.live) + len(str(graph)) % 3
    return Outcome(None, "toy") if size % 3 == 0 else Outcome((size / 10, 1 / size), "", {}, {"training": 0.1})


def url(folder, name):
    return f"sqlite:///{folder}/{name}.db"


@pytest.fixture
def dumped(tmp_path):
    """A study of 12 candidates and its file."""
    study = make(url(tmp_path, "first"), 12)
    work(study, toy)
    assert archive.dump(study, str(tmp_path / "study.json")) == len(study.records())
    return study, str(tmp_path / "study.json")


def test_a_restored_study_has_the_same_records(dumped, tmp_path):
    study, path = dumped
    restored = make(url(tmp_path, "second"), 12)
    assert archive.restore(restored, path) == len(study.records())
    assert restored.records() == study.records()
    assert any(record.cached is not None for record in study.records())  # all kinds are there
    assert {record.state for record in study.records()} == {"passed", "rejected"}
    assert restored.claim("late") is None
    archive.dump(restored, str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_text() == (tmp_path / "study.json").read_text()


def test_the_restored_search_is_the_search_that_was_never_moved(dumped, tmp_path):
    _, path = dumped
    archive.restore(make(url(tmp_path, "second"), 12), path)
    graphs = []
    for name in ("first", "second"):
        work(make(url(tmp_path, name), 30), toy)
        graphs.append([(str(r.graph), r.parent, r.scores, r.cached) for r in make(url(tmp_path, name), 30).records()])
    assert graphs[0] == graphs[1] and len(graphs[0]) >= 30


def test_a_running_candidate_is_tried_again(tmp_path):
    study = make(url(tmp_path, "first"), 3, clock=Clock())
    jobs = [study.claim(name) for name in ("lost", "busy", "failing")]
    assert study.tell(jobs[1], "busy", Outcome(None, "stability: not finite", {"norm": math.inf}))
    assert study.tell(jobs[2], "failing", Outcome(None, "error", {"error": "RuntimeError: no memory"}))
    archive.dump(study, str(tmp_path / "study.json"))
    restored = make(url(tmp_path, "second"), 3, clock=Clock())
    archive.restore(restored, str(tmp_path / "study.json"))
    assert [record.state for record in restored.records()] == ["running", "rejected", "failed"]
    assert restored.records()[1].numbers == {"norm": math.inf}
    for _ in range(ATTEMPTS):  # the first worker did not die of it
        job = restored.claim("next")
        assert (job.number, job.graph) == (jobs[0].number, jobs[0].graph)
        restored.clock.now += 11
    assert restored.claim("next") == WAIT
    assert restored.records()[0].reason == "its workers died"


def test_an_interrupted_restore_can_be_repeated(dumped, tmp_path, monkeypatch):
    study, path = dumped
    restored = make(url(tmp_path, "second"), 12)
    create, left = restored._storage.create_new_trial, iter([1] * 5)

    def killed(*arguments, **options):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return create(*arguments, **options)

    monkeypatch.setattr(restored._storage, "create_new_trial", killed)
    with pytest.raises(KeyboardInterrupt):
        archive.restore(restored, path)
    assert len(restored.records()) == 5
    again = make(url(tmp_path, "second"), 12)
    archive.restore(again, path)
    assert again.records() == study.records()


def test_a_study_with_candidates_of_its_own_is_kept(dumped, tmp_path):
    _, path = dumped
    other = make(url(tmp_path, "other"), 2)
    work(other, lambda graph: Outcome((7.0, 7.0)))
    before = other.records()
    with pytest.raises(Mistake, match=r"only into a working folder without one. Received sqlite:.* Take another"):
        archive.restore(other, path)
    longer = make(url(tmp_path, "first"), 14)
    work(longer, toy)
    with pytest.raises(Mistake, match="a study is restored only into a working folder without one"):
        archive.restore(longer, path)
    assert other.records() == before


def test_another_experiment_is_refused(dumped, tmp_path):
    _, path = dumped
    with pytest.raises(Mistake, match=r"a study is one experiment. Received .* with seed: 0 -> 1"):
        archive.restore(make(url(tmp_path, "second"), 12, seed=1), path)


CHANGES = [
    ({"graph": "nothing(0)"}, r"candidate 1: an operation is one of"),
    ({"graph": None}, r"candidate 1: graph="),
    ({"graph": 3}, r"candidate 1: graph='3'"),
    ({"state": "lost"}, r"candidate 1: state='lost'"),
    ({"state": "running"}, r"candidate 1: state='running'"),
    ({"finished": "yesterday"}, r"candidate 1: Invalid isoformat"),
    ({"state": "passed", "scores": [0.1]}, r"candidate 1: passed with scores=\[0.1\] for 2 anchors"),
    ({"state": "passed", "scores": [0.1, "high"]}, r"candidate 1: passed with scores"),
    ({"state": "rejected", "scores": [0.1, 0.2]}, r"candidate 1: rejected with scores"),
    ({"parent": 1}, r"candidate 1: parent=1, which is not an earlier candidate"),
    ({"parent": True}, r"candidate 1: parent='True'"),
    ({"cached": -1}, r"candidate 1: cached=-1"),
    ({"price": 3}, r"candidate 1: price='3'"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_wrong_candidate_is_refused_before_anything_is_stored(dumped, tmp_path, change, message):
    _, path = dumped
    with open(path) as file:
        content = json.load(file)
    content["candidates"][1].update(change)
    with open(path, "w") as file:
        json.dump(content, file)
    study = make(url(tmp_path, "second"), 12)
    with pytest.raises(Mistake, match=message):
        archive.restore(study, path)
    assert study.records() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must be a file of --mode=dump. Received Expecting value"),
        ("[]", r"Received JSON without format, experiment, candidates"),
        ('{"format": "evonorm-study-9", "experiment": {}, "candidates": []}', r"the format evonorm-study-1. Received"),
        ("[" * 100_000, r"must be a file of --mode=dump"),
        (b"\xff\xfe", r"must be a file of --mode=dump"),
        (None, r"--mode=restore reads a file of --mode=dump. Received .*, which is not there"),
    ],
)
def test_what_is_no_archive_is_a_mistake(tmp_path, text, message):
    path = tmp_path / "study.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Mistake, match=message):
        archive.restore(make(url(tmp_path, "study"), 3), str(path))
