"""The archive of a study: every candidate as one line of a JSON file, from which the same search can be resumed."""

from __future__ import annotations

import datetime
import json
import os
from typing import Any, Optional

from optuna.trial import FrozenTrial

from tf_evonorm.atomic import atomic_path
from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.space.graph import Graph
from tf_evonorm.search.study.study import STATES, Study

FORMAT = "evonorm-study-1"
_KINDS = {state: kind for kind, state in STATES.items()}
_REQUIRED: dict[str, Any] = {"graph": str, "state": str, "fingerprint": str, "started": str}
_OPTIONAL: dict[str, Any] = {
    "finished": str,
    "scores": list,
    "parent": int,
    "cached": int,
    "worker": str,
    "attempts": int,
    "rejected": str,
    "skipped": dict,
    "checking": (int, float),
    "numbers": dict,
    "seconds": dict,
}
_ALWAYS = ("graph", "parent", "fingerprint", "skipped", "checking")  # attributes that every trial has


def dump(study: Study, path: str) -> int:
    """Writes all candidates of a study to a file, atomically; workers may keep running.

    Args:
      study: the study.
      path: JSON file to write.

    Returns:
      Number of candidates, those with cached scores and running ones included.
    """
    rows = [json.dumps(_row(trial), separators=(",", ":")) for trial in study.trials()]
    head = json.dumps({"format": FORMAT, "experiment": study.experiment})[:-1]
    with atomic_path(path) as partial, open(partial, "w") as file:
        file.write(head + ', "candidates": [' + ",".join(f"\n{row}" for row in rows) + "\n]}\n")
    return len(rows)


def restore(study: Study, path: str) -> int:
    """Stores the candidates of a file in a new study, with their numbers, times and parents.

    Candidates that were running are tried again by the next worker. An interrupted call can be repeated.

    Args:
      study: a study without candidates of its own.
      path: JSON file that `dump` has written.

    Returns:
      Number of candidates, as in `dump`.

    Raises:
      Mistake: there is no file, it is not one of `dump`, or the study is another experiment or has other candidates.
    """
    archive = _read(path)
    if difference := study.difference(archive["experiment"]):
        raise Mistake(f"a study is one experiment. Received {path} with {difference}. Take its config.")
    trials = []
    for number, row in enumerate(archive["candidates"]):
        try:
            trials.append(_trial(number, row, len(study.anchors)))
        except (TypeError, ValueError) as error:
            raise Mistake(f"{path} must be a file of --mode=dump. Received candidate {number}: {error}") from error
    study.insert(trials)
    return len(trials)


def _read(path: str) -> dict:
    if not os.path.isfile(path):
        raise Mistake(f"--mode=restore reads a file of --mode=dump. Received {path}, which is not there.")
    try:
        with open(path) as file:
            archive = json.load(file)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise Mistake(f"{path} must be a file of --mode=dump. Received {str(error)[:80]}.") from error
    parts = {"format": str, "experiment": dict, "candidates": list}
    if not isinstance(archive, dict) or not all(isinstance(archive.get(name), kind) for name, kind in parts.items()):
        raise Mistake(f"{path} must be a file of --mode=dump. Received JSON without {', '.join(parts)}.")
    if archive["format"] != FORMAT:
        raise Mistake(f"{path} must have the format {FORMAT}. Received {archive['format'][:40]!r}.")
    return archive


def _row(trial: FrozenTrial) -> dict:
    """Returns a candidate as JSON, without what is empty."""
    stored = dict(trial.user_attrs)
    row = {
        "graph": stored.pop("graph"),
        "state": STATES[trial.state],
        "scores": trial.values or None,
        "parent": stored.pop("parent"),
        "cached": stored.pop("cached", None),
        "rejected": stored.pop("rejected", None),
        "worker": stored.pop("lease")[0],
        "attempts": stored.pop("attempts", 1),
        **stored,
        "started": _text(trial.datetime_start),
        "finished": _text(trial.datetime_complete),
    }
    return {name: value for name, value in row.items() if value not in (None, {}, "")}


def _trial(number: int, row: Any, anchors: int) -> FrozenTrial:
    """Returns a candidate as the database stores it.

    Raises:
      ValueError: a part is missing, unknown, or of another kind than `dump` writes.
    """
    _check(number, row, anchors)
    attributes = {name: row.get(name) for name in _ALWAYS}
    attributes.update({name: row[name] for name in ("cached", "rejected", "numbers", "seconds") if name in row})
    attributes["skipped"] = row.get("skipped", {})
    attributes["checking"] = row.get("checking", 0.0)
    running, attempts = row["state"] == "running", row.get("attempts", 1)
    attributes["attempts"] = max(attempts - running, 0)  # the worker that left it did not die of it
    attributes["lease"] = [row.get("worker", ""), 0.0]
    return FrozenTrial(
        number=number,
        trial_id=-1,
        state=_KINDS[row["state"]],
        value=None,
        values=row.get("scores"),
        datetime_start=_time(row["started"]),
        datetime_complete=None if running else _time(row["finished"]),
        params={},
        distributions={},
        user_attrs=attributes,
        system_attrs={},
        intermediate_values={},
    )


def _check(number: int, row: Any, anchors: int) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"{str(row)[:40]!r}.")
    for name in {*_REQUIRED, *row}:
        kind = {**_REQUIRED, **_OPTIONAL}.get(name)
        if kind is None or not isinstance(row.get(name), kind) or isinstance(row.get(name), bool):
            raise ValueError(f"{name}={str(row.get(name))[:40]!r}.")
    Graph.read(row["graph"])
    if row["state"] not in _KINDS or (row["state"] != "running") != ("finished" in row):
        raise ValueError(f"state={row['state'][:40]!r}, finished={row.get('finished')!r}.")
    scores = row.get("scores", [])
    if len(scores) != anchors * (row["state"] == "passed") or not all(type(s) in (int, float) for s in scores):
        raise ValueError(f"{row['state']} with scores={str(scores)[:40]} for {anchors} anchors.")
    for name in ("parent", "cached"):
        if not 0 <= row.get(name, 0) < max(number, 1):
            raise ValueError(f"{name}={row[name]}, which is not an earlier candidate.")


def _text(time: Optional[datetime.datetime]) -> Optional[str]:
    return time.isoformat() if time else None


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
