"""The loop of one worker: it claims candidates, tries them and stores their outcomes."""

from __future__ import annotations

import os
import platform
import time
import uuid
from typing import Callable, Optional

from tf_evonorm.search.space.graph import Graph
from tf_evonorm.search.study.study import Job, Study
from tf_evonorm.search.trial.outcomes import Outcome

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
