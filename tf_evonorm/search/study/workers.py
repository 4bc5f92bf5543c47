"""Workers: the loop of one, and the processes of one machine, each bound to a core and restarted when it dies."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import time
import uuid
from collections.abc import Iterable
from typing import Callable, Optional

from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.space.graph import Graph
from tf_evonorm.search.study.study import Job, Study
from tf_evonorm.search.trial.outcomes import Outcome

RESTART = 75  # exit code of a worker that asks for a new process
DEATHS = 5  # of one worker in a row, before `keep_workers` gives up
_KILLED = -9  # what subprocess makes of SIGKILL
_SAME_ERROR = 5  # failed candidates in a row with one error, before a worker gives up


def work(
    study: Study,
    evaluate: Callable[[Graph], Outcome],
    limit: Optional[int] = None,
    stop: Callable[[], bool] = lambda: False,
    reported: Callable[[Job, Outcome], None] = lambda job, outcome: None,
    pause: float = 1.0,
) -> bool:
    """Claims candidates, tries them and stores their outcomes until the study is complete.

    Args:
      study: the study.
      evaluate: graph -> `Outcome`. An exception in it makes the candidate a failed one.
      limit: return after this many candidates, for a process whose memory grows and that is to be restarted.
      stop: called between candidates; True ends the loop.
      reported: called with each outcome that was stored.
      pause: seconds between two queries while other workers finish their candidates.

    Returns:
      Whether the study is complete.

    Raises:
      RuntimeError: if several candidates in a row fail with the same error, whose cause then is not the candidates.
    """
    me, done = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}", 0
    last, repeats = None, 0
    while (limit is None or done < limit) and not stop():
        job = study.claim(me)
        if job is None:
            return True
        if isinstance(job, str):  # WAIT
            time.sleep(pause)
            continue
        with study.renewing(job, me):
            outcome, failure = _tried(evaluate, job.graph)
        if study.tell(job, me, outcome):
            reported(job, outcome)
        done += 1
        before, last = last, outcome.numbers.get("error")
        repeats = repeats + 1 if last and last == before else 1
        if repeats == _SAME_ERROR:
            raise RuntimeError(f"candidates must be able to run. Received {repeats} in a row with {last}") from failure
    return False


def _tried(evaluate: Callable[[Graph], Outcome], graph: Graph) -> tuple[Outcome, Optional[Exception]]:
    try:
        return evaluate(graph), None
    except Exception as error:
        return Outcome(None, "error", {"error": f"{type(error).__name__}: {error}"[:2000]}), error


def keep_workers(
    command: Callable[[int], list[str]],
    cores: Iterable[int],
    folder: str,
    watch: Callable[[], None] = lambda: None,
    pause: float = 1.0,
) -> None:
    """Runs one worker process on each core until all have exited with 0.

    A worker that exits with `RESTART` or is killed is restarted: a candidate that kills its workers is given up by the
    study. On the way out, also after an error, all workers are killed.

    Args:
      command: core -> the command of its worker.
      cores: numbers of the cores.
      folder: gets `workerCORE.txt`, the output of each worker.
      watch: called after each pause.
      pause: seconds between two looks at the processes.

    Raises:
      Mistake: if a worker fails `DEATHS` times in a row; the message holds the end of its output.
    """
    start = functools.partial(_start, command, folder)
    running = {core: start(core) for core in cores}
    deaths = dict.fromkeys(running, 0)
    try:
        while running:
            time.sleep(pause)
            for core, worker in list(running.items()):
                code = worker.poll()
                if code == 0:
                    del running[core]
                elif code is not None:
                    deaths[core] = 0 if code in (RESTART, _KILLED) else deaths[core] + 1
                    if deaths[core] >= DEATHS:
                        raise Mistake(
                            f"workers must be able to run. Received one that died {DEATHS} times in a row: "
                            f"{_end_of_output(folder, core)} The whole output is in {_output(folder, core)}."
                        )
                    running[core] = start(core)
            watch()
    finally:
        for worker in running.values():
            worker.kill()


def _start(command: Callable[[int], list[str]], folder: str, core: int) -> subprocess.Popen:
    with open(_output(folder, core), "ab") as out:
        # Linux alone binds a process to a core; elsewhere the system places it.
        bind = functools.partial(os.sched_setaffinity, 0, {core}) if hasattr(os, "sched_setaffinity") else None
        return subprocess.Popen(command(core), stdout=out, stderr=out, stdin=subprocess.DEVNULL, preexec_fn=bind)


def _output(folder: str, core: int) -> str:
    return os.path.join(folder, f"worker{core}.txt")


def _end_of_output(folder: str, core: int) -> str:
    with open(_output(folder, core), errors="replace") as file:
        return file.read()[-600:].strip() or "nothing on its output."
