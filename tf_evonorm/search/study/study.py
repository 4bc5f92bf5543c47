"""A study that many workers share: who takes which candidate, what was found, kept in a database by Optuna; any process may die at any time."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from tf_evonorm.search.space.checks import Checks, fingerprint
from tf_evonorm.search.space.graph import Graph
from tf_evonorm.search.space.primitives import USUAL, Protection
from tf_evonorm.search.study.database_lock import Turns
from tf_evonorm.search.study.evolution import Evolution, Rules
from tf_evonorm.search.trial.outcomes import Outcome

ATTEMPTS = 3  # workers that may die over one candidate before it is given up
_TRIES = 100_000  # graphs that may be passed over in a row
_AT_ONCE = 20  # layers that take the scores of others before the lock is given to the next
_CACHED = 1000  # layers that may take the scores of others in a row
_ALIKE = 5  # errors of one kind in a row with which a worker ends
_PASSING = (optuna.exceptions.UpdateFinishedTrialError, optuna.exceptions.StorageInternalError)
WAIT = "wait"
_AGAIN = "again"


class Job(NamedTuple):
    """A candidate that a worker has taken."""

    trial_id: int
    number: int
    graph: Graph


class Record(NamedTuple):
    """A candidate as the database has it.

    `state` is "running", "passed", "rejected" or "failed"; `cached` the number of the candidate whose scores it has because it computes
    the same, `skipped` the graphs that were passed over before it, by reason, and `seconds["checks"]` what the cheap checks of it and of
    those took; `finished` a `datetime`.
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
    started: Any
    finished: Any


_STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "passed",
    TrialState.PRUNED: "rejected",
    TrialState.FAIL: "failed",
}


@dataclasses.dataclass
class Study:
    """One search.

    Args:
      url: of the database: "sqlite:///FILE" for one machine (made if need be), or "postgresql+psycopg://HOST/NAME" for many (extra `postgresql`).
      anchors: their names; a candidate has one score for each.
      candidates: how many are to be tried; those whose scores are known already do not count.
      rules, checks: see there.
      seed: of all proposals. One worker alone makes the same search again.
      cache: whether a layer that computes the same as one before takes its scores. Such a layer takes that one's place in the population.
      lease: seconds after which a worker that has not been heard of counts as dead; longer than the clocks of the machines differ.
      protection: of the primitives, for checks and fingerprints.
      name: of the study in the database.
      settings: whatever else makes it this experiment and no other; JSON.
      clock: seconds, alike on all machines.

    Raises:
      ValueError: the database holds a study of this name with other settings.
    """

    url: str
    anchors: tuple
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
        self._graphs: dict = {}
        self._turns = Turns(self.url, self.name)
        self._patiently(self._open)

    def _patiently(self, action, *arguments):
        """Acts in its turn; again where the database fails: another machine makes its tables, or it starts, or the line is cut."""
        for left in reversed(range(20)):
            try:
                with self._turns.taken():
                    return action(*arguments)
            except ValueError:
                raise
            except Exception:
                if not left:
                    raise
                time.sleep(random.uniform(0.1, 1))

    def _open(self):
        options = {"connect_args": {"timeout": 120}} if self._turns.local else {"pool_pre_ping": True}
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
        mine = json.loads(json.dumps(mine, default=str))
        theirs = study.user_attrs.setdefault("experiment", mine)
        changed = sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
        if changed:
            told = "; ".join(f"{key}: {theirs.get(key)} -> {mine.get(key)}" for key in changed)
            raise ValueError(
                f"a study is one experiment. Received {self.name} of {self.url} with {told}. Take another workdir."
            )
        if "experiment" not in self._storage.get_study_user_attrs(self._id):
            study.set_user_attr("experiment", mine)

    @property
    def _id(self):
        return self._storage.get_study_id_from_name(self.name)

    def _trials(self):
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def _graph(self, trial):
        if trial.number not in self._graphs:
            self._graphs[trial.number] = Graph.read(trial.user_attrs["graph"])
        return self._graphs[trial.number]

    def records(self) -> list[Record]:
        """All candidates, in the order in which they were taken."""
        return [
            Record(
                trial.number,
                self._graph(trial),
                trial.user_attrs["parent"],
                _STATES[trial.state],
                tuple(trial.values) if trial.values else None,
                trial.user_attrs.get("rejected", ""),
                trial.user_attrs.get("cached"),
                trial.user_attrs.get("skipped", {}),
                trial.user_attrs.get("numbers", {}),
                {**trial.user_attrs.get("seconds", {}), "checks": trial.user_attrs.get("checking", 0.0)},
                trial.user_attrs["lease"][0],
                trial.user_attrs.get("attempts", 1),
                trial.datetime_start,
                trial.datetime_complete,
            )
            for trial in self._trials()
        ]

    def claim(self, me: str) -> Job | str | None:
        """Takes a candidate: that of a dead worker, or else a new one.

        Args:
          me: name of the worker, unlike all others.

        Returns:
          A `Job`; `WAIT` if all candidates are taken and some are not finished; None if the study is complete.
        """
        while (job := self._patiently(self._claim, me)) is _AGAIN:
            pass
        return job

    def _claim(self, me):
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

    def _new(self, trials, me, now):
        """Proposes until there is a graph to be trained."""
        if len(trials) > _CACHED and all("cached" in trial.user_attrs for trial in trials[-_CACHED:]):
            raise ValueError(
                f"the space must hold more layers than were tried. Received one whose last {_CACHED} layers all computed the same as one "
                "before. Lower study.candidates or enlarge the space."
            )
        evolution, known = Evolution(self.rules), {}
        for trial in sorted(
            trials, key=lambda trial: (trial.datetime_complete is None, trial.datetime_complete, trial.number)
        ):
            known.setdefault(trial.user_attrs["fingerprint"], (trial.number, trial.state, trial.values))
            if trial.state == TrialState.COMPLETE:
                evolution.tell(trial.number, self._graph(trial), trial.values, trial.user_attrs.get("cached"))
        twin = [] if self._turns.kept else [uuid.uuid4().int]  # or else two workers may see the same candidates
        rng = np.random.default_rng([self.seed, len(trials), *twin])
        skipped, checking, cached = collections.Counter(), 0.0, 0
        for _ in range(_TRIES):
            proposal = evolution.ask(rng)
            start = time.perf_counter()
            reason = self.checks.reason(proposal.graph, self.protection)
            name = fingerprint(proposal.graph, self.protection) if self.cache and not reason else uuid.uuid4().hex
            checking += time.perf_counter() - start
            number, state, scores = known.get(name, (None, None, None))
            if state not in (None, TrialState.COMPLETE):
                reason = "twin"
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
            skipped.clear()
            checking = 0.0
            if state == TrialState.COMPLETE:
                attributes["cached"] = first = number
                number, _ = self._create(TrialState.COMPLETE, attributes, scores)
                evolution.tell(number, proposal.graph, scores, first)
                cached += 1
                if cached == _AT_ONCE:
                    return _AGAIN
                continue
            number, trial_id = self._create(TrialState.RUNNING, attributes)
            return Job(trial_id, number, proposal.graph)
        raise ValueError(
            f"no new graph in {_TRIES} tries. Received checks and a space that leave too little: {dict(skipped)}."
        )

    def _create(self, state, attributes, scores=None):
        """A trial with all that belongs to it, in one transaction: its number and its id in the database."""
        template = create_trial(state=state, values=scores, user_attrs=attributes)
        trial_id = self._storage.create_new_trial(self._id, template_trial=template)
        return self._storage.get_trial(trial_id).number, trial_id

    def mine(self, job: Job, me: str) -> bool:
        """Whether a candidate still belongs to a worker."""
        trial = self._storage.get_trial(job.trial_id)
        return trial.state == TrialState.RUNNING and trial.user_attrs["lease"][0] == me

    @contextlib.contextmanager
    def renewing(self, job: Job, me: str) -> Iterator[None]:
        """Keeps the lease of a candidate alive."""
        over = threading.Event()

        def renew():
            while not over.wait(self.lease / 3):
                # Without the lock, which others may hold for longer than a lease. If the candidate is taken over between the two
                # lines, one of the two results counts all the same.
                with contextlib.suppress(*_PASSING):
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
        """Writes what came of a candidate.

        Returns:
          Whether it counted: not if another worker has taken the candidate meanwhile.
        """
        failed = outcome.scores is None and "error" in outcome.numbers
        state = TrialState.COMPLETE if outcome.scores is not None else TrialState.FAIL if failed else TrialState.PRUNED
        attributes: dict = {"numbers": outcome.numbers, "seconds": outcome.seconds}
        if outcome.rejected:
            attributes["rejected"] = outcome.rejected
        return self._patiently(
            lambda: self.mine(job, me) and self._finish(job.trial_id, state, outcome.scores, attributes)
        )

    def _finish(self, trial_id, state, scores, attributes):
        try:
            for key, value in attributes.items():
                self._storage.set_trial_user_attr(trial_id, key, json.loads(json.dumps(value, default=str)))
            return self._storage.set_trial_state_values(trial_id, state, scores)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False


def work(
    study: Study,
    evaluate: Callable[[Graph], Outcome],
    limit: Optional[int] = None,
    stop: Callable[[], bool] = lambda: False,
    told: Callable[[Job, Outcome], None] = lambda job, outcome: None,
    pause: float = 1.0,
) -> bool:
    """Takes candidates, tries them, tells; until the study is complete.

    Args:
      study: the study.
      evaluate: graph -> `Outcome`. An exception makes the candidate a failed one.
      limit: return after so many candidates, for a process that grows and is started anew.
      stop: asked between candidates.
      told: called with what counted.
      pause: seconds between two looks while others finish.

    Returns:
      Whether the study is complete.

    Raises:
      ValueError: several candidates in a row failed with one and the same error, which then is none of theirs.
    """
    me, done = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}", 0
    said, alike = None, 0
    while (limit is None or done < limit) and not stop():
        job = study.claim(me)
        if job is None:
            return True
        if isinstance(job, str):  # WAIT
            time.sleep(pause)
            continue
        with study.renewing(job, me):
            try:
                outcome = evaluate(job.graph)
            except Exception as error:
                outcome = Outcome(None, "error", {"error": f"{type(error).__name__}: {error}"[:2000]})
        if study.tell(job, me, outcome):
            told(job, outcome)
        done += 1
        before, said = said, outcome.numbers.get("error")
        alike = alike + 1 if said and said == before else 1
        if alike == _ALIKE:
            raise ValueError(
                f"a candidate that fails must fail for its own reason. Received {alike} in a row with {said}"
            )
    return False
