"""Worker processes of one machine: restarts, giving up; the loop of one worker is tested with the study."""

import signal
import subprocess
import sys

import pytest

from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.study import workers
from tf_evonorm.search.study.workers import DEATHS, RESTART, keep_workers


class Process:
    """A worker that ends at once, with the given exit codes in their order."""

    def __init__(self, codes):
        self.codes = iter(codes)

    def __call__(self, *_, **__):
        self.code = next(self.codes)
        return self

    def poll(self):
        return self.code

    def kill(self):
        pass


def test_workers_may_be_killed_any_number_of_times(monkeypatch, tmp_path):
    ends = Process([-signal.SIGKILL] * 50 + ([RESTART] + [1] * (DEATHS - 1)) * 2 + [0])
    monkeypatch.setattr(workers.subprocess, "Popen", ends)
    watched = []
    keep_workers(lambda core: ["worker"], [0], str(tmp_path), lambda: watched.append(1), pause=0.0)
    assert not list(ends.codes)
    assert len(watched) == 50 + 2 * DEATHS + 1


def test_a_worker_that_always_fails_ends_the_search_with_its_output(tmp_path):
    """Real processes, bound to a real core."""
    commands = {0: [sys.executable, "-c", "import sys; sys.exit('no such device')"]}
    with pytest.raises(Mistake, match=rf"(?s)died {DEATHS} times in a row: .*no such device.*worker0.txt"):
        keep_workers(commands.get, [0], str(tmp_path), pause=0.02)
    assert (tmp_path / "worker0.txt").read_text().count("no such device") == DEATHS


def test_all_workers_are_killed_on_the_way_out(tmp_path):
    started = []
    popen = subprocess.Popen

    class Recording(popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    workers.subprocess.Popen, forever = Recording, [sys.executable, "-c", "import time; time.sleep(600)"]
    try:
        with pytest.raises(KeyboardInterrupt):
            keep_workers(lambda core: forever, [0], str(tmp_path), interrupted, pause=0.02)
    finally:
        workers.subprocess.Popen = popen
    assert started[0].wait(timeout=60) == -signal.SIGKILL


def interrupted():
    raise KeyboardInterrupt


def test_where_processes_cannot_be_bound_to_cores_workers_run_unbound(monkeypatch, tmp_path):
    monkeypatch.delattr(workers.os, "sched_setaffinity")  # as on macOS
    keep_workers(lambda core: [sys.executable, "-c", "print('ran')"], [0, 1], str(tmp_path), pause=0.02)
    assert [(tmp_path / f"worker{core}.txt").read_text() for core in (0, 1)] == ["ran\n", "ran\n"]
