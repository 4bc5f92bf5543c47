"""Workers of a search as tasks of Dask: one for each process of this machine, or for each worker of a cluster.

The study in its database is the truth. Dask starts processes, limits their memory, restarts them and spreads them over
machines; it holds no results, so any of its processes may be killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Optional

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, get_worker
from distributed.comm import CommClosedError

from tf_evonorm.mistakes import Mistake

DEATHS = 5  # of workers in a row, by one error, without a finished candidate in between
LOST = 30  # workers that vanish in a row, without a finished candidate in between
PATIENCE = 30.0  # seconds without the scheduler
ABSENCE = 3600.0  # seconds without any worker, which a busy cluster may take to start one
_GIVEN_UP = "distributed.deploy.lost-worker-timeout"
_LOST_SCHEDULER = (CommClosedError, OSError, TimeoutError)


@contextlib.contextmanager
def connected(
    workers: int, scheduler: Optional[str] = None, memory_limit: str = "auto", folder: str = "."
) -> Iterator[Client]:
    """Yields a client of a cluster.

    Args:
      workers: number of processes of a new cluster on this machine, of one thread each.
      scheduler: address of a running scheduler, such as "tcp://HOST:8786"; its workers are used in place of new ones.
      memory_limit: memory of each new process, such as "4GB", above which Dask restarts it; "auto" divides that of the
        machine.
      folder: where new processes keep temporary files.

    Raises:
      Mistake: no scheduler answers at the address, or the limit is none.
    """
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # a lost scheduler is reported by `keep_working`
    if scheduler:
        try:
            client = Client(scheduler, timeout=PATIENCE)
        except (*_LOST_SCHEDULER, ValueError) as error:
            raise Mistake(
                f"--scheduler must be the address of a Dask scheduler. Received {scheduler!r}, which does not answer "
                f"({type(error).__name__}). Start one with: dask scheduler"
            ) from error
        with client:
            yield client
        return
    try:
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=memory_limit,
            local_directory=os.path.join(folder, "dask"),
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        )
    except ValueError as error:
        raise Mistake(f"--memory_limit must be like 4GB, or auto. Received {memory_limit!r}: {error}") from error
    # Dask would give up a process for good that a busy machine has not started again within 15 s.
    with cluster, Client(cluster) as client, dask.config.set({_GIVEN_UP: f"{ABSENCE:.0f} s"}):
        yield client


def keep_working(
    client: Client,
    task: Callable[..., bool],
    arguments: tuple,
    watch: Callable[[], int],
    pause: float = 1.0,
) -> None:
    """Keeps one task on each worker of a cluster until the study is complete.

    Args:
      client: of the cluster; workers may join and leave at any time.
      task: (*arguments) -> whether the study is complete. It can be imported on the workers. False asks for a new
        process: the worker is restarted if it has a nanny.
      arguments: of the task.
      watch: called after each pause; returns the number of finished candidates.
      pause: seconds between two rounds.

    Raises:
      Mistake: a task raised one; tasks failed `DEATHS` times in a row; the scheduler or all workers are lost.
    """
    state = _Tasks(client, task, arguments)
    while not state.round():
        time.sleep(pause)
        state.progress(watch())
    watch()


class _Tasks:
    """The tasks of a cluster, one for each worker."""

    def __init__(self, client: Client, task: Callable[..., bool], arguments: tuple):
        self.client, self.task, self.arguments = client, task, arguments
        self.running: dict[str, Future] = {}  # address of a worker -> its task
        self.finished, self.deaths, self.lost = -1, 0, 0
        self.seen_scheduler = self.seen_workers = time.monotonic()

    def progress(self, finished: int) -> None:
        if finished != self.finished:
            self.finished, self.deaths, self.lost = finished, 0, 0

    def round(self) -> bool:
        """Collects tasks that ended and gives one to each free worker; returns whether the study is complete."""
        workers = self._workers()
        if self.client.status != "running":
            return False
        for address, future in list(self.running.items()):
            if address not in workers:  # killed, restarted or lost; the study's leases take care of its candidate
                self._drop(address, lost=True)
            elif future.done():
                self._drop(address, lost=False)
                if self._completes(address, future):
                    return True
        for address in workers - self.running.keys():
            self.running[address] = self.client.submit(
                self.task, *self.arguments, workers=[address], allow_other_workers=False, pure=False
            )
        return False

    def _workers(self) -> set[str]:
        found: set[str] = set()
        now = time.monotonic()
        if self.client.status == "running":
            with contextlib.suppress(*_LOST_SCHEDULER):
                found = set(self.client.nthreads())
                self.seen_scheduler = now
        if found:
            self.seen_workers = now
        if now - self.seen_scheduler > PATIENCE or now - self.seen_workers > ABSENCE:
            raise Mistake(
                f"a search needs a Dask scheduler with workers. Received none for {now - self.seen_workers:.0f} s. "
                "Nothing is lost: start them again, then the same command."
            )
        return found

    def _drop(self, address: str, lost: bool) -> None:
        self.running.pop(address)
        self.lost += lost
        if self.lost > LOST:
            raise Mistake(
                f"workers must be able to run. Received {self.lost} that vanished in a row, without a finished "
                "candidate. Raise --memory_limit, or see their output above."
            )

    def _completes(self, address: str, future: Future) -> bool:
        if future.status == "finished":
            if future.result():
                return True
            with contextlib.suppress(ValueError, *_LOST_SCHEDULER):  # a worker without a nanny continues as it is
                self.client.restart_workers([address], raise_for_error=False)
            return False
        error = future.exception() if future.status == "error" else None
        if isinstance(error, Mistake):
            raise error
        if error is not None and not isinstance(error, KilledWorker):
            self.deaths += 1
            if self.deaths >= DEATHS:
                raise Mistake(
                    f"workers must be able to run. Received {self.deaths} that failed in a row, the last with "
                    f"{type(error).__name__}: {error}"
                ) from error
        return False


def bind_to_core() -> None:
    """Binds the task that calls this to one core, if its worker is a numbered process of this machine."""
    name = get_worker().name
    if isinstance(name, int) and hasattr(os, "sched_setaffinity"):  # Linux alone binds a process to a core
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[name % len(cores)]})


def described(client: Any) -> str:
    """Returns one line: the addresses of the scheduler and of Dask's dashboard."""
    return f"Dask: scheduler {client.scheduler.address}, dashboard {client.dashboard_link}"
