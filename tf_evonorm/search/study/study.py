"""A study that many workers share through a database kept by Optuna; any process may be killed at any time."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import json
import random
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState, create_trial

from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.space.checks import Checks, fingerprint
from tf_evonorm.search.space.graph import Graph
from tf_evonorm.search.space.primitives import USUAL, Protection
from tf_evonorm.search.study.database_lock import DatabaseLock
from tf_evonorm.search.study.evolution import Evolution, Rules
from tf_evonorm.search.trial.outcomes import Outcome

ATTEMPTS = 3  # workers that may die while they try one candidate, before it counts as failed
WAIT = "wait"
_TRIES = 100_000  # graphs that may be skipped in a row
_CACHED_AT_ONCE = 20  # layers that take cached scores before the lock is released for other workers
_CACHED_IN_A_ROW = 1000  # layers that may take cached scores in a row
_INSERTED_AT_ONCE = 100  # restored candidates before the lock is released for other processes
_RETRIES = 20  # of an action that a database error interrupted
_DATABASE_ERRORS = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
_AGAIN = "again"
_OLD_REASONS = {"twin": "duplicate"}  # names in databases of earlier versions -> names of today


class Job(NamedTuple):
    """A candidate that a worker has claimed.

    Attributes:
      trial_id: its id in the database.
      number: its number in the study.
      graph: the layer.
    """

    trial_id: int
    number: int
    graph: Graph


class Record(NamedTuple):
    """A candidate as stored in the database.

    Attributes:
      number: its number in the study.
      graph: the layer.
      parent: number of the candidate that it was mutated from; None for a newcomer.
      state: "running", "passed", "rejected" or "failed".
      scores: one per anchor, or None.
      reason: why it was rejected or failed, or "".
      cached: number of the candidate that computes the same function and whose scores it takes; None if it was trained.
      skipped: number of graphs that were skipped before it, by reason.
      numbers: what was measured, by name.
      seconds: duration of each phase, by name; "checks" is that of the cheap checks, skipped graphs included.
      worker: name of the last worker that claimed it.
      attempts: number of workers that claimed it.
      started, finished: time stamps; `finished` is None while it is running.
    """

    number: int
    graph: Graph
    parent: Optional[int]
    state: str
    scores: Optional[tuple]
    reason: str
    cached: Optional[int]
    skipped: dict
    numbers: dict
    seconds: dict
    worker: str
    attempts: int
    started: Optional[datetime.datetime]
    finished: Optional[datetime.datetime]


STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "passed",
    TrialState.PRUNED: "rejected",
    TrialState.FAIL: "failed",
}


@dataclasses.dataclass
class Study:
    """One search.

    Args:
      url: URL of the database: "sqlite:///FILE" for one machine (created if missing), or
        "postgresql+psycopg://HOST/NAME" for many (extra `postgresql`).
      anchors: names of the anchors; a candidate has one score for each.
      candidates: number of candidates to try, without those that take cached scores.
      rules: how candidates are proposed.
      checks: which graphs are skipped without a trial.
      seed: seed of all proposals. A search with one worker is reproducible.
      cache: whether a layer that computes the same function as an earlier one takes its scores, and replaces it in the
        population.
      lease: seconds without a sign of life after which a worker counts as dead; must exceed the difference between the
        clocks of the machines.
      protection: constants of the primitives, for checks and fingerprints.
      name: name of the study in the database.
      settings: everything else that identifies this experiment; JSON.
      clock: returns seconds since the epoch.

    Attributes:
      experiment: everything that identifies this experiment; JSON.

    Raises:
      Mistake: if the database holds a study of this name with other settings, or does not answer.
    """

    url: str
    anchors: tuple[str, ...]
    candidates: int
    rules: Rules = dataclasses.field(default_factory=Rules)
    checks: Checks = dataclasses.field(default_factory=Checks)
    seed: int = 0
    cache: bool = True
    lease: float = 300.0
    protection: Protection = USUAL
    name: str = "evonorm"
    settings: dict = dataclasses.field(default_factory=dict)
    clock: Callable[[], float] = time.time

    def __post_init__(self):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._graphs: dict[int, Graph] = {}
        self._lock = DatabaseLock(self.url, self.name)
        try:
            self._retried(self._open)
        except (*_DATABASE_ERRORS, OSError) as error:
            cause = str(error.__cause__ or error).strip().splitlines()[0]
            raise Mistake(
                f"study.url must be a database that answers. Received {self._lock.shown_url}: {cause}. "
                "Start the server, or correct its address, user or password."
            ) from error

    def _retried(self, action: Callable, *arguments: Any) -> Any:
        """Calls `action` with the lock held, and again after a database error such as a lost connection."""
        for left in reversed(range(_RETRIES)):
            try:
                with self._lock.held():
                    return action(*arguments)
            except _DATABASE_ERRORS:
                if not left:
                    raise
                time.sleep(random.uniform(0.1, 1))

    def _open(self) -> None:
        options = {"connect_args": {"timeout": 120}} if self._lock.local else {"pool_pre_ping": True}
        self._storage = optuna.storages.get_storage(optuna.storages.RDBStorage(self.url, engine_kwargs=options))
        study = optuna.create_study(
            storage=self._storage,
            study_name=self.name,
            directions=["maximize"] * len(self.anchors),
            load_if_exists=True,
        )
        mine = {
            "anchors": list(self.anchors),
            "rules": dataclasses.asdict(self.rules),
            "checks": dataclasses.asdict(self.checks),
            "protection": dataclasses.asdict(self.protection),
            "seed": self.seed,
            "cache": self.cache,
            **self.settings,
        }
        self.experiment = mine = json.loads(json.dumps(mine, default=str))
        theirs = study.user_attrs.setdefault("experiment", mine)
        if difference := self.difference(theirs):
            raise Mistake(
                f"a study is one experiment. Received {self.name} of {self._lock.shown_url} with {difference}. "
                "Take another workdir."
            )
        if "experiment" not in self._storage.get_study_user_attrs(self._id):
            study.set_user_attr("experiment", mine)

    def difference(self, theirs: dict) -> str:
        """Returns what another experiment has otherwise, or ""; settings that one of them lacks are None there."""
        mine = self.experiment
        changed = sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
        return "; ".join(f"{key}: {theirs.get(key)} -> {mine.get(key)}" for key in changed)

    @property
    def _id(self) -> int:
        return self._storage.get_study_id_from_name(self.name)

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def _graph(self, trial: FrozenTrial) -> Graph:
        if trial.number not in self._graphs:
            self._graphs[trial.number] = Graph.read(trial.user_attrs["graph"])
        return self._graphs[trial.number]

    def trials(self) -> list[FrozenTrial]:
        """Returns all candidates as the database stores them."""
        return self._retried(self._trials)

    def insert(self, trials: list[FrozenTrial]) -> None:
        """Stores the candidates of an archive; an interrupted call can be repeated.

        Raises:
          Mistake: if the study has other candidates.
        """
        while self._retried(self._insert, trials):
            pass

    def _insert(self, trials: list[FrozenTrial]) -> bool:
        """Stores the next candidates; returns whether some are left. The lock is released for others in between."""
        present = self._trials()
        same = [_identity(mine) == _identity(other) for mine, other in zip(present, trials)]
        if len(present) > len(trials) or not all(same):
            raise Mistake(
                "a study is restored only into a working folder without one. "
                f"Received {self._lock.shown_url} with {len(present)} "
                "candidates of its own. Take another workdir."
            )
        for trial in trials[len(present) : len(present) + _INSERTED_AT_ONCE]:
            self._storage.create_new_trial(self._id, template_trial=trial)
        return len(present) + _INSERTED_AT_ONCE < len(trials)

    def records(self) -> list[Record]:
        """Returns all candidates, in the order in which they were first claimed."""
        return [self._record(trial) for trial in self._trials()]

    def _record(self, trial: FrozenTrial) -> Record:
        stored = trial.user_attrs
        return Record(
            number=trial.number,
            graph=self._graph(trial),
            parent=stored["parent"],
            state=STATES[trial.state],
            scores=tuple(trial.values) if trial.values else None,
            reason=stored.get("rejected", ""),
            cached=stored.get("cached"),
            skipped={_OLD_REASONS.get(reason, reason): n for reason, n in stored.get("skipped", {}).items()},
            numbers=stored.get("numbers", {}),
            seconds={**stored.get("seconds", {}), "checks": stored.get("checking", 0.0)},
            worker=stored["lease"][0],
            attempts=stored.get("attempts", 1),
            started=trial.datetime_start,
            finished=trial.datetime_complete,
        )

    def claim(self, me: str) -> Job | str | None:
        """Claims a candidate: that of a dead worker, or else a new one.

        Args:
          me: unique name of the worker.

        Returns:
          A `Job`; `WAIT` if all candidates are claimed and some are not finished; None if the study is complete.

        Raises:
          Mistake: if the checks reject every graph of the space, or the space holds too few different layers.
        """
        while (job := self._retried(self._claim, me)) is _AGAIN:
            pass
        return job

    def _claim(self, me: str) -> Job | str | None:
        trials, now = self._trials(), self.clock()
        for trial in trials:
            if trial.state == TrialState.RUNNING and trial.user_attrs["lease"][1] < now:
                attempts = trial.user_attrs.get("attempts", 1)
                if attempts >= ATTEMPTS:
                    self._finish(trial._trial_id, TrialState.FAIL, None, {"rejected": "its workers died"})
                    return WAIT
                self._storage.set_trial_user_attr(trial._trial_id, "attempts", attempts + 1)
                self._storage.set_trial_user_attr(trial._trial_id, "lease", [me, now + self.lease])
                return Job(trial._trial_id, trial.number, self._graph(trial))
        if sum("cached" not in trial.user_attrs for trial in trials) >= self.candidates:
            return None if all(trial.state.is_finished() for trial in trials) else WAIT
        return self._new(trials, me, now)

    def _new(self, trials: list[FrozenTrial], me: str, now: float) -> Job | str:
        """Proposes graphs until one is to be trained; stores those that take cached scores on the way."""
        evolution, earlier = self._history(trials)
        # Without a lock, two workers may see the same candidates and must not propose the same children.
        stream = [] if self._lock.exclusive else [uuid.uuid4().int]
        rng = np.random.default_rng([self.seed, len(trials), *stream])
        skipped: collections.Counter = collections.Counter()
        checking, cached = 0.0, 0
        for _ in range(_TRIES):
            proposal = evolution.ask(rng)
            start = time.perf_counter()
            reason = self.checks.reason(proposal.graph, self.protection)
            name = fingerprint(proposal.graph, self.protection) if self.cache and not reason else uuid.uuid4().hex
            checking += time.perf_counter() - start
            same = earlier.get(name)
            if same is not None and same.state != TrialState.COMPLETE:
                reason = "duplicate"
            if reason:
                skipped[reason] += 1
                continue
            attributes = {
                "graph": str(proposal.graph),
                "parent": proposal.parent,
                "fingerprint": name,
                "lease": [me, now + self.lease],
                "skipped": dict(skipped),
                "checking": round(checking, 6),
            }
            if same is None:
                number, trial_id = self._create(TrialState.RUNNING, attributes)
                return Job(trial_id, number, proposal.graph)
            number, _ = self._create(TrialState.COMPLETE, {**attributes, "cached": same.number}, same.values)
            evolution.tell(number, proposal.graph, same.values, same.number)
            skipped, checking, cached = collections.Counter(), 0.0, cached + 1
            if cached == _CACHED_AT_ONCE:
                return _AGAIN
        raise Mistake(
            f"some graphs of the space must pass the checks. Received {_TRIES} graphs in a row that did not: "
            f"{dict(skipped)}. Switch checks off, or enlarge the space."
        )

    def _history(self, trials: list[FrozenTrial]) -> tuple[Evolution, dict[str, FrozenTrial]]:
        """Returns the evolution so far, and the first trial of each fingerprint."""
        if len(trials) > _CACHED_IN_A_ROW and all("cached" in t.user_attrs for t in trials[-_CACHED_IN_A_ROW:]):
            raise Mistake(
                "the space must hold more layers than were tried. Received a space whose last "
                f"{_CACHED_IN_A_ROW} layers all computed the same as earlier ones. Lower study.candidates or enlarge "
                "the space."
            )
        evolution = Evolution(self.rules)
        earlier: dict[str, FrozenTrial] = {}
        for trial in sorted(trials, key=lambda t: (t.datetime_complete is None, t.datetime_complete, t.number)):
            earlier.setdefault(trial.user_attrs["fingerprint"], trial)
            if trial.state == TrialState.COMPLETE:
                evolution.tell(trial.number, self._graph(trial), trial.values, trial.user_attrs.get("cached"))
        return evolution, earlier

    def _create(self, state: TrialState, attributes: dict, scores: Any = None) -> tuple[int, int]:
        """Creates a trial with its attributes in one transaction; returns its number and its id."""
        template = create_trial(state=state, values=scores, user_attrs=attributes)
        trial_id = self._storage.create_new_trial(self._id, template_trial=template)
        return self._storage.get_trial(trial_id).number, trial_id

    def mine(self, job: Job, me: str) -> bool:
        """Returns whether a candidate still belongs to a worker."""
        trial = self._storage.get_trial(job.trial_id)
        return trial.state == TrialState.RUNNING and trial.user_attrs["lease"][0] == me

    @contextlib.contextmanager
    def renewing(self, job: Job, me: str) -> Iterator[None]:
        """Renews the lease of a candidate, in a thread, for the duration of a `with` block."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(self.lease / 3):
                # Without the lock, which others may hold for longer than a lease. If another worker claims the
                # candidate between the two lines, still only one of the two results counts.
                with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError, *_DATABASE_ERRORS):
                    if not self.mine(job, me):
                        return
                    self._storage.set_trial_user_attr(job.trial_id, "lease", [me, self.clock() + self.lease])

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def tell(self, job: Job, me: str, outcome: Outcome) -> bool:
        """Stores the outcome of a candidate.

        Returns:
          Whether it was stored; False if another worker has claimed the candidate in the meantime.
        """
        failed = outcome.scores is None and "error" in outcome.numbers
        state = TrialState.COMPLETE if outcome.scores is not None else TrialState.FAIL if failed else TrialState.PRUNED
        attributes: dict = {"numbers": outcome.numbers, "seconds": outcome.seconds}
        if outcome.rejected:
            attributes["rejected"] = outcome.rejected
        return self._retried(
            lambda: self.mine(job, me) and self._finish(job.trial_id, state, outcome.scores, attributes)
        )

    def _finish(self, trial_id: int, state: TrialState, scores: Optional[tuple], attributes: dict) -> bool:
        try:
            for key, value in attributes.items():
                self._storage.set_trial_user_attr(trial_id, key, json.loads(json.dumps(value, default=str)))
            return self._storage.set_trial_state_values(trial_id, state, scores)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False


def _identity(trial: FrozenTrial) -> tuple:
    """Returns what two trials of one candidate have in common."""
    return trial.user_attrs["graph"], trial.state, trial.datetime_start
