"""Workers as tasks of Dask: restarts, errors, exact counts while workers, drivers and schedulers are killed."""

import collections
import contextlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import dask
import postgresql
import pytest

from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.study import cluster
from tf_evonorm.search.study.evolution import Rules
from tf_evonorm.search.study.study import Study

ROOT = pathlib.Path(__file__).resolve().parents[4]
# A study with a toy instead of training, for workers and drivers. Without TensorFlow they start at once.
MODULE = (
    f"""
import os, sys, time, types
package = types.ModuleType("tf_evonorm")
package.__path__ = [{str(ROOT / "tf_evonorm")!r}]
sys.modules["tf_evonorm"] = package
from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.study import cluster
"""
    + """
from tf_evonorm.search.study.evolution import Rules
from tf_evonorm.search.study.study import Study
from tf_evonorm.search.study.workers import work
from tf_evonorm.search.trial.outcomes import Outcome

cluster.PATIENCE = 10.0


def make(url, candidates):
    return Study(url, ("a", "b"), candidates, Rules(initial=5, window=30, newcomers=0.3), lease=10.0)


def toy(graph):
    time.sleep(0.03)
    size = len(graph.live) + len(str(graph)) % 3
    return Outcome(None, "toy", {"size": size}) if size % 3 == 0 else Outcome((size / 10, -len(graph.steps) / 10))


def write(path, line):
    with open(path, "ab", buffering=0) as file:
        file.write(f"{line}\\n".encode())


def task(url, folder, candidates, limit):
    write(f"{folder}/pids", os.getpid())
    append = lambda job, outcome: write(f"{folder}/reported", f"{job.number} {outcome.scores}")
    return work(make(url, candidates), toy, limit, reported=append, pause=0.1)


def finished(study):
    return sum(record.cached is None and record.state != "running" for record in study.records())


if __name__ == "__main__":
    url, folder, candidates, limit, workers, scheduler = sys.argv[1:]
    import toys  # by its name, as workers of a cluster import it

    study = make(url, int(candidates))
    try:
        with cluster.connected(int(workers), scheduler or None, folder=folder) as client:
            given = (url, folder, int(candidates), int(limit))
            cluster.keep_working(client, toys.task, given, lambda: finished(study), pause=0.2)
    except Mistake as mistake:
        sys.exit(f"mistake: {mistake}")
"""
)


@pytest.fixture
def world(tmp_path):
    """A folder with the module of the toy, the environment of its processes, and the end of all that were started."""
    (tmp_path / "toys.py").write_text(MODULE)
    for name in ("pids", "reported"):
        (tmp_path / name).touch()
    started = []
    yield World(tmp_path, f"sqlite:///{tmp_path}/study.db", started)
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def served(world):
    """The same on a database server."""
    with postgresql.server() as world.url:
        yield world
        for process in world.started:
            process.kill()


class World:
    def __init__(self, folder, url, started):
        self.folder, self.url, self.started = folder, url, started

    def start(self, *command, pipe=True):
        environment = {**os.environ, "PYTHONPATH": f"{self.folder}:{ROOT}"}
        output = subprocess.PIPE if pipe else subprocess.DEVNULL
        process = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=self.folder, env=environment, stdout=output, stderr=output
        )
        self.started.append(process)
        return process

    def drive(self, candidates, workers, limit=40, scheduler=""):
        script = self.folder / "toys.py"
        return self.start(script, self.url, self.folder, candidates, limit, workers, scheduler)

    def reported(self):
        return (self.folder / "reported").read_text().splitlines()

    def wait(self, count, process=None):
        while len(self.reported()) < count and (process is None or process.poll() is None):
            time.sleep(0.05)

    def kill_a_worker(self, rng):
        """Kills one of the last processes that have taken a task."""
        pids = [int(line) for line in (self.folder / "pids").read_text().split()][-4:]
        rng.shuffle(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return 1
        return 0

    def check(self, candidates):
        study = Study(self.url, ("a", "b"), candidates, Rules(initial=5, window=30, newcomers=0.3), lease=10.0)
        records = study.records()
        assert sum(record.cached is None for record in records) == candidates
        assert all(record.state != "running" for record in records)
        numbers = [int(line.split()[0]) for line in self.reported()]
        assert max(collections.Counter(numbers).values()) == 1  # none was counted twice
        for line in self.reported():  # and none that was reported as stored is lost
            number, scores = line.split(" ", 1)
            assert str(records[int(number)].scores) == scores
        return records


def run(world, candidates, kills, workers):
    rng, driver, done = random.Random(kills), world.drive(candidates, workers), 0
    while driver.poll() is None and done < kills:
        world.wait((done + 1) * candidates // (kills + 1), driver)
        time.sleep(rng.uniform(0, 0.3))
        done += world.kill_a_worker(rng)
    _, error = driver.communicate(timeout=600)
    assert driver.returncode == 0, error.decode()[-3000:]
    assert done >= kills // 2
    world.check(candidates)


@pytest.mark.slow
def test_workers_that_are_killed_lose_nothing(world):
    run(world, candidates=80, kills=6, workers=2)


@pytest.mark.slow
def test_nor_do_they_on_a_server(served):
    run(served, candidates=80, kills=6, workers=2)


@pytest.mark.thorough
def test_fifty_kills(world):
    run(world, candidates=500, kills=50, workers=3)


@pytest.mark.thorough
def test_fifty_kills_on_a_server(served):
    run(served, candidates=500, kills=50, workers=3)


@pytest.mark.parametrize(
    "kills", [pytest.param(2, marks=pytest.mark.slow), pytest.param(12, marks=pytest.mark.thorough)]
)
def test_a_killed_driver_takes_its_workers_with_it_and_loses_nothing(world, kills):
    candidates = 20 * (kills + 1)
    for done in range(kills):
        driver = world.drive(candidates, workers=2)
        world.wait(20 * (done + 1) - 10, driver)
        driver.kill()
        driver.communicate()
        pids = {int(line) for line in (world.folder / "pids").read_text().split()}
        for _ in range(100):
            alive = [pid for pid in pids if running(pid)]
            if not alive:
                break
            time.sleep(0.1)
        assert not alive
    driver = world.drive(candidates, workers=2)
    _, error = driver.communicate(timeout=600)
    assert driver.returncode == 0, error.decode()[-3000:]
    world.check(candidates)


def running(pid):
    """Whether a process is there and is more than an entry that nobody has read."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start_cluster(world, workers):
    """A scheduler and workers as processes of their own; returns them and the scheduler's address."""
    file = world.folder / f"scheduler{len(world.started)}.json"
    modules = "distributed.cli.dask_scheduler", "distributed.cli.dask_worker"
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file]
    scheduler = world.start("-m", modules[0], *options, pipe=False)
    while not file.exists():
        time.sleep(0.1)
    common = ["--scheduler-file", file, "--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard"]
    own = [world.start("-m", modules[1], *common, pipe=False) for _ in range(workers)]
    return scheduler, own, re.search(r"tcp://[\d.:]+", file.read_text())[0]


def kill_schedulers(world, kills):
    candidates = 30 * (kills + 1)
    for done in range(kills + 1):
        scheduler, workers, address = start_cluster(world, 2)
        driver = world.drive(candidates, 0, 1000, address)
        if done < kills:
            world.wait(30 * done + 10, driver)
            world.kill_a_worker(random.Random(done))  # its nanny starts another one
            world.wait(30 * done + 20, driver)
            scheduler.kill()
        _, error = driver.communicate(timeout=600)
        for process in workers:
            process.terminate()
        if done < kills:
            assert driver.returncode == 1 and b"Traceback" not in error, error.decode()[-3000:]
            assert b"Nothing is lost: start them again, then the same command." in error
    assert driver.returncode == 0, error.decode()[-3000:]
    world.check(candidates)


@pytest.mark.slow
def test_a_killed_scheduler_loses_nothing(world):
    kill_schedulers(world, 1)


@pytest.mark.slow
def test_nor_does_one_whose_study_is_on_a_server(served):
    kill_schedulers(served, 1)


@pytest.mark.thorough
def test_five_killed_schedulers_lose_nothing(world):
    kill_schedulers(world, 5)


def test_no_scheduler_is_a_mistake(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    for address in ("tcp://127.0.0.1:9", "nowhere at all", "http://127.0.0.1:9"):
        match = r"--scheduler must be the address of a Dask scheduler. Received"
        with pytest.raises(Mistake, match=match), cluster.connected(1, address):
            pass


def test_a_wrong_memory_limit_is_a_mistake(tmp_path):
    match = r"--memory_limit must be like 4GB, or auto. Received 'much'"
    with pytest.raises(Mistake, match=match), cluster.connected(1, None, "much", str(tmp_path)):
        pass


def test_slow_restarts_do_not_cost_a_worker(tmp_path):
    """Dask's default is 15 s, after which a killed process of a busy machine would not come back."""
    with cluster.connected(1, None, "auto", str(tmp_path)) as client:
        assert dask.config.get("distributed.deploy.lost-worker-timeout") == "3600 s"
        client.wait_for_workers(1, timeout=60)


class Future:
    def __init__(self, result):
        self.outcome = result
        self.status = "error" if isinstance(result, BaseException) else "finished"

    def done(self):
        return self.outcome is not None

    def result(self):
        return self.outcome

    def exception(self):
        return self.outcome


class Client:
    """A cluster of workers whose tasks end at once as given; restarts are counted."""

    status = "running"

    def __init__(self, workers, results):
        self.workers, self.results, self.restarted, self.given = workers, iter(results), [], []

    def nthreads(self):
        return dict.fromkeys(next(self.workers) if hasattr(self.workers, "__next__") else self.workers, 1)

    def submit(self, task, *arguments, workers, allow_other_workers, pure):
        assert not allow_other_workers and not pure
        self.given.append(workers[0])
        return Future(next(self.results))

    def restart_workers(self, workers, raise_for_error):
        self.restarted += workers


def test_a_worker_is_restarted_after_its_candidates_until_the_study_is_complete():
    client, watched = Client(["a"], [False, False, True]), []
    cluster.keep_working(client, None, (), lambda: watched.append(1) or len(watched), pause=0.0)
    assert client.given == ["a"] * 3 and client.restarted == ["a"] * 2


def test_workers_that_join_get_a_task_and_those_that_leave_are_forgotten():
    seen = iter([["a"], ["a", "b"], ["b"], ["b", "c"], ["b", "c"]])
    client = Client(seen, [None, None, True])
    cluster.keep_working(client, None, (), lambda: 0, pause=0.0)
    assert client.given == ["a", "b", "c"] and not client.restarted


def test_errors_in_a_row_end_the_search():
    client = Client(["a"], [RuntimeError("no such device")] * 50)
    with pytest.raises(Mistake, match=r"failed in a row, the last with RuntimeError: no such device"):
        cluster.keep_working(client, None, (), lambda: 3, pause=0.0)
    assert len(client.given) == cluster.DEATHS
    counts = iter(range(100))
    results = [RuntimeError("now and then"), *[RuntimeError("now and then"), False] * 10, True]
    cluster.keep_working(Client(["a"], results), None, (), lambda: next(counts), pause=0.0)  # with progress in between


def test_a_mistake_of_a_task_ends_the_search_at_once():
    client = Client(["a"], [Mistake("config.source: there is nothing")])
    with pytest.raises(Mistake, match=r"config.source: there is nothing"):
        cluster.keep_working(client, None, (), lambda: 0, pause=0.0)
    assert len(client.given) == 1


def test_workers_that_only_vanish_end_the_search():
    names = ([f"{number}"] for number in range(1000))
    with pytest.raises(Mistake, match=r"that vanished in a row, without a finished candidate"):
        cluster.keep_working(Client(names, [None] * 1000), None, (), lambda: 7, pause=0.0)


def test_a_cluster_without_workers_is_waited_for_and_then_a_mistake(monkeypatch):
    monkeypatch.setattr(cluster, "ABSENCE", 0.2)
    with pytest.raises(Mistake, match=r"Received none for .* Nothing is lost"):
        cluster.keep_working(Client([], []), None, (), lambda: 0, pause=0.01)
