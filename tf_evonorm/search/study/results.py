"""What a search found: its progress in a line, known layers beside it, the best ones trained longer, the winner as a file."""

from __future__ import annotations

import collections
import json
import os

import numpy as np
import tensorflow as tf

from tf_evonorm.atomic import whole
from tf_evonorm.search.space.graph import KNOWN, Graph
from tf_evonorm.search.space.graph_layer import layer_from_graph
from tf_evonorm.search.study.evolution import Member, ranked
from tf_evonorm.search.study.study import Record, Study
from tf_evonorm.search.trial.candidate import Candidate, repeated
from tf_evonorm.search.trial.proxy_task import Run

BASELINES = ("bn_relu", "gn_relu", "b0", "s0")


def finished(search: Study) -> list:
    """Records of the candidates that were tried and are done; those that took the scores of another do not count."""
    return [record for record in search.records() if record.cached is None and record.state != "running"]


def passed(search: Study) -> list:
    """Records with scores of their own."""
    return [record for record in finished(search) if record.state == "passed"]


def progress(search: Study, rate: float) -> str:
    """Rejected by reason, best accuracy per anchor, candidates per hour, time left.

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
    """The layers with the highest mean scores, each function once."""
    return ranked([Member(record.number, record.graph, record.scores) for record in passed(search)], top)


def known(candidate: Candidate, folder: str) -> dict:
    """Trains the known layers as the search trains its candidates, for numbers to compare with; kept in `known.json` in the folder.

    Args:
      candidate: how the search tries graphs; its tests are left out.
      folder: of the search.

    Returns:
      name -> scores, one per anchor.
    """
    path = os.path.join(folder, "known.json")
    found = read(path, {})
    for name in BASELINES:
        if name not in found:
            found[name] = repeated(KNOWN[name], candidate, [candidate.seed])[0].tolist()
            write(path, json.dumps(found, indent=1))
    return found


def rerank(search: Study, candidate: Candidate, folder: str, top: int = 10, seeds: int = 3) -> list:
    """Trains the best layers and the known ones anew with several seeds, on images that the search has not seen.

    Each line is written to `rerank.json` in the folder as soon as it is there, so it can be gone on with.

    Args:
      search: the study.
      candidate: how they are trained.
      folder: of the search.
      top: how many of the best.
      seeds: trainings of each in each anchor.

    Returns:
      Rows {"name", "graph", "accuracy": [seeds][anchors]}, best mean first; a training that broke down counts as 0 in the mean.

    Source: EvoNorm paper, section 4: the top 10, on held-out data. It does so on ImageNet with full-size networks.
    """
    path = os.path.join(folder, "rerank.json")
    rows = read(path, [])
    wanted = {name: KNOWN[name] for name in BASELINES}
    wanted.update({f"candidate {member.key}": member.graph for member in best(search, top)})
    for name, graph in wanted.items():
        if name not in {row["name"] for row in rows}:
            accuracy = repeated(graph, candidate, range(seeds)).tolist()
            rows.append({"name": name, "graph": str(graph), "accuracy": accuracy})
            rows.sort(key=lambda row: -np.nan_to_num(row["accuracy"]).mean())
            write(path, json.dumps(rows, indent=1))
    return rows


def over_seeds(row: dict) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [anchors] over the seeds of a row of `rerank`; a training that broke down counts as 0."""
    accuracy = np.nan_to_num(np.array(row["accuracy"], float))
    return accuracy.mean(0), accuracy.std(0, ddof=1) if len(accuracy) > 1 else np.zeros(accuracy.shape[1])


def export(search: Study, candidate: Candidate, folder: str) -> str:
    """Writes the winner: `best.json`, and `best_model`, the first anchor trained with it as a SavedModel.

    The winner is the first candidate of `rerank.json` where that is there, or else the one with the highest mean score.

    Returns:
      What was written, in words.

    Raises:
      ValueError: no candidate has scores.
    """
    rows = [row for row in read(os.path.join(folder, "rerank.json"), []) if row["name"].startswith("candidate")]
    members = best(search, 1)
    if not members:
        raise ValueError(f"a layer that passed all tests is needed. Received {folder} without one. Search longer.")
    graph = Graph.read(rows[0]["graph"]) if rows else members[0].graph
    path = os.path.join(folder, "best.json")
    write(path, graph.pruned().to_json() + "\n")
    run = Run(candidate.anchors[0], layer_from_graph(graph, **candidate.layer), candidate.images, candidate.training)
    run.train()
    with whole(os.path.join(folder, "best_model")) as partial:
        tf.saved_model.save(run.model, partial)
    return f"{path}: {graph.formula()}\n{folder}/best_model: {run.anchor.name}, accuracy {run.accuracy():.3f}"


def skipped(search: Study) -> collections.Counter:
    """Graphs that were passed over before any training, by reason."""
    return sum((collections.Counter(record.skipped) for record in search.records()), collections.Counter())


def timeline(search: Study) -> list:
    """(core-seconds that all workers had spent by then, record) of all that is done, in the order in which it was done.

    What a worker did between two candidates counts too: parents, mutations, cheap checks, the database. The start of its process does not.
    """
    spent, last, line = 0.0, {}, []
    for record in sorted((r for r in search.records() if r.finished), key=lambda r: (r.finished, r.number)):
        # Another worker, which died, may have begun this one.
        begun = last.get(record.worker, record.started if record.attempts == 1 else record.finished)
        spent += max((record.finished - begun).total_seconds(), sum(record.seconds.values()))
        last[record.worker] = record.finished
        line.append((spent, record))
    return line


def seconds(search: Study) -> collections.Counter:
    """Core-seconds by phase; "proposing" is what comes between two candidates and is no cheap check, see `timeline`."""
    line = timeline(search)
    spent = sum((collections.Counter(record.seconds) for _, record in line), collections.Counter())
    if line:
        spent["proposing"] = line[-1][0] - sum(spent.values())
    return spent


def trying(record: Record) -> float:
    """Core-seconds that a candidate took after it was proposed."""
    return sum(value for phase, value in record.seconds.items() if phase != "checks")


def read(path: str, default):
    """What a JSON file of the search's folder holds; `default` where there is none."""
    if not os.path.exists(path):
        return default
    with open(path) as file:
        return json.load(file)


def write(path: str, text: str):
    """A whole file or none."""
    with whole(path) as partial, open(partial, "w") as file:
        file.write(text)
