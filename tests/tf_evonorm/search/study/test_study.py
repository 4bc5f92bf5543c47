"""A study with a toy instead of training: exact counts, cached scores, adoption, and workers killed at random."""

import collections
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import optuna
import postgresql
import pytest
import sqlalchemy

from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.space.checks import Checks
from tf_evonorm.search.space.graph import Graph, Space
from tf_evonorm.search.study import study as study_module
from tf_evonorm.search.study.evolution import Rules
from tf_evonorm.search.study.study import WAIT, Study
from tf_evonorm.search.study.workers import work
from tf_evonorm.search.trial.outcomes import Outcome

ROOT = pathlib.Path(__file__).resolve().parents[4]
RULES = Rules(initial=5, window=30, newcomers=0.3)
WORKER = """
import os, sys, time, types
package = types.ModuleType("tf_evonorm")
package.__path__ = ["tf_evonorm"]
sys.modules["tf_evonorm"] = package  # without TensorFlow a worker starts at once
sys.path.insert(0, "tests/tf_evonorm/search/study")
from test_study import make, toy
from tf_evonorm.search.study.workers import work

def reported(job, outcome):
    with open(sys.argv[2], "ab", buffering=0) as file:
        file.write(f"{job.number} {outcome.scores}\\n".encode())

work(make(sys.argv[1], int(sys.argv[3])), lambda graph: (time.sleep(0.03), toy(graph))[1], reported=reported, pause=0.1)
"""


def make(url, candidates, **options):
    return Study(url, ("a", "b"), candidates, RULES, lease=options.pop("lease", 10.0), **options)


def toy(graph):
    """Scores that depend on the graph alone; a third is rejected."""
    size = len(graph.live) + len(str(graph)) % 3
    if size % 3 == 0:
        return Outcome(None, "toy", {"size": size})
    return Outcome((size / 10, -len(graph.steps) / 10), seconds={"train": 0.1})


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


def test_one_worker_makes_exactly_the_candidates_and_the_same_ones_again(tmp_path):
    seen = []
    for name in ("a", "b"):
        study = make(f"sqlite:///{tmp_path}/{name}.db", 15)
        assert work(study, toy)
        assert study.claim("late") is None
        records = study.records()
        assert all(record.seconds["checks"] > 0 for record in records)
        seen.append([r._replace(worker="", seconds={}, started=None, finished=None) for r in records])
    assert seen[0] == seen[1]
    records = seen[0]
    assert [record.number for record in records] == list(range(len(records)))
    trained = [record for record in records if record.cached is None]
    assert len(trained) == 15
    for record in records:
        want = toy(record.graph)
        if record.cached is None:
            assert (record.scores, record.reason) == (want.scores, want.rejected)
        else:
            original = records[record.cached]
            assert original.cached is None and record.scores == original.scores and original.number < record.number
        if record.parent is not None:
            assert records[record.parent].state == "passed" and record.parent < record.number
    assert {record.state for record in records} == {"passed", "rejected"}
    assert sum(sum(record.skipped.values()) for record in records) > 15


def test_a_run_in_parts_is_the_run_in_one(tmp_path):
    whole, parts = (f"sqlite:///{tmp_path}/{name}.db" for name in ("whole", "parts"))
    work(make(whole, 8), toy)
    while not work(make(parts, 8), toy, limit=3):
        pass
    graphs = [[str(record.graph) for record in make(url, 8).records()] for url in (whole, parts)]
    assert graphs[0] == graphs[1]


def test_without_cache_and_checks_everything_is_tried(url):
    checks = Checks(independent=False, not_finite=False, constant=False, flat=False)
    study = make(url, 20, cache=False, checks=checks)
    work(study, toy)
    records = study.records()
    assert len(records) == 20 and not any(record.skipped or record.cached for record in records)


class Clock:
    """Seconds that pass when set."""

    now = 1000.0

    def __call__(self):
        return self.now


def test_a_dead_workers_candidate_is_taken_over_and_its_late_result_does_not_count(url):
    study = make(url, 1, clock=Clock())
    first = study.claim("first")
    assert study.claim("second") == WAIT  # leased, and there is no other
    study.clock.now += 11
    second = study.claim("second")
    assert (second.number, second.graph) == (first.number, first.graph)
    assert not study.tell(first, "first", Outcome((9.0, 9.0)))
    assert study.tell(second, "second", Outcome((1.0, 2.0)))
    assert not study.tell(second, "second", Outcome((3.0, 4.0)))
    (record,) = study.records()
    assert (record.state, record.scores, record.attempts, record.worker) == ("passed", (1.0, 2.0), 2, "second")
    assert study.claim("third") is None


def test_a_lease_is_renewed_while_work_continues(url):
    study = make(url, 1, clock=Clock(), lease=0.3)
    job = study.claim("slow")

    def lease():
        return study._storage.get_trial(job.trial_id).user_attrs["lease"]

    assert lease() == ["slow", 1000.3]
    with study.renewing(job, "slow"):
        study.clock.now = 2000.0
        while lease()[1] < 2000:  # the test's own time limit ends it
            time.sleep(0.02)
        assert study.claim("other") == WAIT
    study.clock.now = 3000.0
    assert study.claim("other").number == job.number
    with study.renewing(job, "slow"):
        time.sleep(0.3)
    assert lease() == ["other", 3000.3]  # what was taken over is not taken back


def test_a_candidate_that_kills_its_workers_is_given_up(url):
    study = make(url, 1, clock=Clock())
    for attempt in range(3):
        assert study.claim(f"victim {attempt}") != WAIT
        study.clock.now += 11
    assert study.claim("next") == WAIT
    assert study.claim("next") is None
    assert [(record.state, record.reason) for record in study.records()] == [("failed", "its workers died")]


def test_an_exception_is_a_failed_candidate(url):
    def broken(graph):
        raise RuntimeError("no memory")

    study = make(url, 3)
    assert work(study, broken)
    records = study.records()
    assert [record.state for record in records] == ["failed"] * 3
    assert records[0].numbers == {"error": "RuntimeError: no memory"}


def test_an_error_that_repeats_ends_the_worker(url):
    def broken(graph):
        raise RuntimeError("no such device")

    study = make(url, 50)
    with pytest.raises(RuntimeError, match=r"Received 5 in a row with RuntimeError: no such device") as raised:
        work(study, broken)
    assert len(study.records()) == 5
    assert str(raised.value.__cause__) == "no such device"  # with the traceback of the failure itself

    kinds = iter(range(100))

    def each_its_own(graph):
        raise RuntimeError(f"{next(kinds)}")

    assert work(make(f"{url}2", 12), each_its_own)


def test_a_space_without_new_layers_is_a_mistake(url, monkeypatch):
    monkeypatch.setattr(study_module, "_CACHED_IN_A_ROW", 40)
    study = Study(url, ("a",), 60, Rules(initial=2, newcomers=0.5, space=Space(nodes=1)))
    with pytest.raises(ValueError, match=r"more layers than were tried. Received a space whose last 40 layers"):
        work(study, lambda graph: Outcome((0.5,)))
    assert len(study.records()) < 500


def test_an_interrupted_connection_loses_nothing(url, monkeypatch):
    study = make(url, 4)
    monkeypatch.setattr(study_module.time, "sleep", lambda seconds: None)
    failures, trials = iter([True, False] * 100), study._trials

    def shaky():
        if next(failures):
            raise optuna.exceptions.StorageInternalError("server closed the connection")
        return trials()

    monkeypatch.setattr(study, "_trials", shaky)
    assert work(study, toy)
    assert len([record for record in make(url, 4).records() if record.cached is None]) == 4


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("server closed the connection")), 20),
        (sqlalchemy.exc.IntegrityError("INSERT", {}, Exception("two processes at once")), 20),
        (optuna.exceptions.StorageInternalError("commit"), 20),
        (TypeError("a fault of the program"), 1),
        (KeyError("graph"), 1),
        (MemoryError(), 1),
        (OSError(28), 1),
    ],
)
def test_only_database_errors_are_retried(url, monkeypatch, error, tries):
    study, calls = make(url, 4), []
    monkeypatch.setattr(study_module.time, "sleep", lambda seconds: None)

    def failing():
        calls.append(1)
        raise error

    monkeypatch.setattr(study, "_trials", failing)
    with pytest.raises(type(error)):
        study.claim("worker")
    assert len(calls) == tries


def test_a_server_that_does_not_answer_is_a_mistake_and_its_password_is_not_shown(monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setattr(study_module.time, "sleep", lambda seconds: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Mistake, match=r"study.url must be a database that answers") as raised:
        make(f"postgresql+psycopg://study:secret@127.0.0.1:{port}/postgres", 3)
    assert "secret" not in str(raised.value) and str(port) in str(raised.value)


@pytest.mark.parametrize("url", ["no database", "sqlite", "nosuchserver://host/name"])
def test_a_wrong_url_is_a_mistake(url):
    with pytest.raises(Mistake, match=r"study.url must be a database that SQLAlchemy knows"):
        make(url, 3)


def test_a_file_that_is_no_database_is_a_mistake(tmp_path, monkeypatch):
    monkeypatch.setattr(study_module.time, "sleep", lambda seconds: None)
    (tmp_path / "study.db").write_text("something else entirely, and longer than a header of a database" * 20)
    with pytest.raises(Mistake, match=r"study.url must be a database that answers. Received sqlite:///"):
        make(f"sqlite:///{tmp_path}/study.db", 3)


def test_another_experiment_is_refused(url):
    make(url, 3)
    make(url, 99)  # more of the same is the same
    with pytest.raises(ValueError, match=r"a study is one experiment. Received evonorm .* seed: 0 -> 1"):
        make(url, 3, seed=1)


def test_what_a_graph_computes_is_tried_once(url):
    study = make(url, 15)
    tried = []
    work(study, lambda graph: tried.append(graph) or Outcome((np.sin(len(tried)), 0.0)))
    assert len(tried) == 15 and len({graph.canonical() for graph in tried}) == 15
    assert all(isinstance(graph, Graph) for graph in tried)


def kill(tmp_path, url, candidates, kills, workers, seed=0):
    """Workers and kills at random; returns (study, lines written after each stored result, kills done)."""
    rng, log = random.Random(seed), tmp_path / "reported"
    log.touch()
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, str(tmp_path / "worker.py"), url, str(log), str(candidates)]

    def start():
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)

    running, done = [start() for _ in range(workers)], 0
    while running:
        time.sleep(0.02)
        if len(log.read_bytes().splitlines()) >= (done + 1) * candidates // (kills + 1) and done < kills:
            time.sleep(rng.uniform(0, 0.3))  # so that it may hit anything: a start, a claim, a write
            victim = running.pop(rng.randrange(len(running)))
            victim.send_signal(signal.SIGKILL)
            victim.communicate()
            done += 1
            running.append(start())
        for worker in [worker for worker in running if worker.poll() is not None]:
            assert worker.returncode == 0, worker.communicate()[1].decode()
            worker.communicate()
            running.remove(worker)
    return make(url, candidates), log.read_text().splitlines(), done


def check(study, reported, candidates):
    records = study.records()
    trained = [record for record in records if record.cached is None]
    assert len(trained) == candidates
    assert all(record.state != "running" for record in records)
    # Every result that was reported to a worker as stored is there with those scores, and none was reported twice.
    numbers = [int(line.split()[0]) for line in reported]
    assert max(collections.Counter(numbers).values()) == 1
    by_number = {record.number: record for record in records}
    for line in reported:
        number, scores = line.split(" ", 1)
        assert str(by_number[int(number)].scores) == scores
    for record in trained:
        if record.reason != "its workers died":  # three killed over one, or too slow for their lease
            state = "rejected" if record.reason else "passed"
            assert (record.state, record.scores) == (state, toy(record.graph).scores)
    return records


@pytest.fixture
def server():
    with postgresql.server() as url:
        yield url


def kill_and_check(tmp_path, url, candidates, kills, workers):
    study, reported, done = kill(tmp_path, url, candidates, kills, workers)
    assert done >= kills // 2
    check(study, reported, candidates)


@pytest.mark.slow
def test_workers_that_are_killed_lose_nothing(tmp_path, url):
    kill_and_check(tmp_path, url, candidates=100, kills=8, workers=3)


@pytest.mark.slow
def test_nor_do_they_on_a_server(tmp_path, server):
    kill_and_check(tmp_path, server, candidates=100, kills=8, workers=2)


@pytest.mark.thorough
def test_fifty_kills(tmp_path, url):
    kill_and_check(tmp_path, url, candidates=500, kills=50, workers=4)


@pytest.mark.thorough
def test_fifty_kills_on_a_server(tmp_path, server):
    kill_and_check(tmp_path, server, candidates=500, kills=50, workers=2)
