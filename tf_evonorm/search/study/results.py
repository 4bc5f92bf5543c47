"""The results of a search: progress line, baselines, the best layers retrained, the winner as a file, durations."""

from __future__ import annotations

import collections
import datetime
import json
import os
from typing import Any

import numpy as np
import tensorflow as tf

from tf_evonorm.atomic import atomic_path
from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.space.graph import BASELINES, Graph
from tf_evonorm.search.space.graph_layer import layer_from_graph
from tf_evonorm.search.space.simplify import simplify
from tf_evonorm.search.study.evolution import Member, ranked
from tf_evonorm.search.study.study import Record, Study
from tf_evonorm.search.trial.candidate import Candidate, repeated
from tf_evonorm.search.trial.proxy_task import Run

COMPARED = ("bn_relu", "gn_relu", "b0", "s0")


def finished(search: Study) -> list[Record]:
    """Returns the records of the candidates whose trial has ended, without those that took cached scores."""
    return [record for record in search.records() if record.cached is None and record.state != "running"]


def passed(search: Study) -> list[Record]:
    """Returns the records with scores of their own."""
    return [record for record in finished(search) if record.state == "passed"]


def progress(search: Study, rate: float) -> str:
    """Returns one line: candidates by outcome, best accuracy per anchor, candidates per hour, time left.

    Args:
      search: the study.
      rate: candidates per hour.
    """
    records, good = finished(search), passed(search)
    reasons = collections.Counter(record.reason for record in records if record.state != "passed")
    best = np.max([record.scores for record in good], 0) if good else []
    left = (search.candidates - len(records)) / rate if rate > 0 else float("inf")
    parts = [
        f"passed {len(good)}",
        *(f"{reason} {count}" for reason, count in reasons.most_common()),
        *(f"best {anchor} {score:.3f}" for anchor, score in zip(search.anchors, best)),
        f"{rate:.0f}/h",
        f"{left:.1f} h left" if np.isfinite(left) else "",
    ]
    return ", ".join(part for part in parts if part)


def best(search: Study, top: int) -> list[Member]:
    """Returns the layers with the highest mean scores, each function once."""
    return ranked([Member(record.number, record.graph, record.scores or ()) for record in passed(search)], top)


def train_baselines(candidate: Candidate, folder: str) -> dict[str, list[float]]:
    """Trains the baselines as the search trains its candidates; their scores are stored in `baselines.json`.

    Args:
      candidate: how the search tries graphs; its tests are not run.
      folder: folder of the search.

    Returns:
      name -> scores, one per anchor.
    """
    scores = baselines(folder)
    for name in COMPARED:
        if name not in scores:
            scores[name] = repeated(BASELINES[name], candidate, [candidate.seed])[0].tolist()
            write(os.path.join(folder, "baselines.json"), json.dumps(scores, indent=1))
    return scores


def baselines(folder: str) -> dict[str, list[float]]:
    """Returns what `train_baselines` has stored in the folder of a search, so far."""
    earlier = read(os.path.join(folder, "known.json"), {})  # the file's name in earlier versions
    return read(os.path.join(folder, "baselines.json"), earlier)


def rerank(search: Study, candidate: Candidate, folder: str, top: int = 10, seeds: int = 3) -> list[dict]:
    """Retrains the best layers and the baselines with several seeds, on images that the search has not seen.

    Each row is written to `rerank.json` in the folder as soon as it is measured, so an interrupted call can be resumed.

    Args:
      search: the study.
      candidate: how they are trained.
      folder: folder of the search.
      top: number of layers of the search.
      seeds: number of trainings of each layer in each anchor.

    Returns:
      Rows {"name", "graph", "accuracy": [seeds][anchors]}, best mean first; a training that diverged counts as 0 in the
      mean.

    Source: EvoNorm paper, section 4: the top 10, on held-out data. The paper does so on ImageNet with full-size
      networks.
    """
    path = os.path.join(folder, "rerank.json")
    rows = read(path, [])
    wanted = {name: BASELINES[name] for name in COMPARED}
    wanted.update({f"candidate {member.key}": member.graph for member in best(search, top)})
    for name, graph in wanted.items():
        if name not in {row["name"] for row in rows}:
            accuracy = repeated(graph, candidate, range(seeds)).tolist()
            rows.append({"name": name, "graph": str(graph), "accuracy": accuracy})
            rows.sort(key=lambda row: -np.nan_to_num(row["accuracy"]).mean())
            write(path, json.dumps(rows, indent=1))
    return rows


def over_seeds(row: dict) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and deviation [anchors] over the seeds of a row of `rerank`; diverged trainings count as 0."""
    accuracy = np.nan_to_num(np.array(row["accuracy"], float))
    return accuracy.mean(0), accuracy.std(0, ddof=1) if len(accuracy) > 1 else np.zeros(accuracy.shape[1])


def export(search: Study, candidate: Candidate, folder: str) -> str:
    """Writes the winner as `best.json`, and the first anchor trained with it as the SavedModel `best_model`.

    The winner is the first candidate of `rerank.json` if that file exists, or else the one with the highest mean score.

    Returns:
      Two lines that name what was written.

    Raises:
      Mistake: if no candidate has scores.
    """
    rows = [row for row in read(os.path.join(folder, "rerank.json"), []) if row["name"].startswith("candidate")]
    members = best(search, 1)
    if not members:
        raise Mistake(f"a layer that passed all tests is needed. Received {folder} without one. Search longer.")
    graph = Graph.read(rows[0]["graph"]) if rows else members[0].graph
    path = os.path.join(folder, "best.json")
    write(path, graph.pruned().to_json() + "\n")
    run = Run(candidate.anchors[0], layer_from_graph(graph, **candidate.layer), candidate.images, candidate.training)
    run.train()
    with atomic_path(os.path.join(folder, "best_model")) as partial:
        tf.saved_model.save(run.model, partial)
    formula = simplify(graph, search.protection).formula()
    return f"{path}: {formula}\n{folder}/best_model: {run.anchor.name}, accuracy {run.accuracy():.3f}"


def skipped(search: Study) -> collections.Counter:
    """Returns the number of graphs that were skipped before any training, by reason."""
    return sum((collections.Counter(record.skipped) for record in search.records()), collections.Counter())


def timeline(search: Study) -> list[tuple[float, Record]]:
    """Returns (core-seconds that all workers had spent by then, record) of every finished candidate, in that order.

    The time between two candidates of a worker counts too: proposals, cheap checks, the database. The start of its
    process does not.
    """
    spent, line = 0.0, []
    last: dict[str, datetime.datetime] = {}  # end of the last candidate of each worker
    ended = [(record.finished, record.number, record) for record in search.records() if record.finished]
    for end, _, record in sorted(ended, key=lambda row: row[:2]):
        # Another worker, which died, may have started this candidate.
        started = record.started if record.attempts == 1 else None
        elapsed = (end - last.get(record.worker, started or end)).total_seconds()
        spent += max(elapsed, sum(record.seconds.values()))
        last[record.worker] = end
        line.append((spent, record))
    return line


def seconds_by_phase(line: list[tuple[float, Record]]) -> dict[str, float]:
    """Returns core-seconds by phase, costliest first.

    Args:
      line: a `timeline`, or its beginning.

    Returns:
      phase -> seconds; "proposing" is the time between two candidates without the cheap checks.
    """
    spent: dict[str, float] = {}
    for _, record in line:
        for phase, seconds in record.seconds.items():
            spent[phase] = spent.get(phase, 0.0) + seconds
    if line:
        spent["proposing"] = line[-1][0] - sum(spent.values())
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def trying(record: Record) -> float:
    """Returns the core-seconds that the trial of a candidate took, without its proposal."""
    return sum(value for phase, value in record.seconds.items() if phase != "checks")


def read(path: str, default: Any) -> Any:
    """Returns the content of a JSON file, or `default` if there is no such file."""
    if not os.path.exists(path):
        return default
    with open(path) as file:
        return json.load(file)


def write(path: str, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_path(path) as partial, open(partial, "w") as file:
        file.write(text)
