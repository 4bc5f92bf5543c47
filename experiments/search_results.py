"""What a search found: its progress in a line, the best ones trained longer, the winner as a file, one HTML page with its figures."""

from __future__ import annotations

import base64
import collections
import html
import json
import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tf_evonorm.search.candidate import Candidate, repeated
from tf_evonorm.search.evolution import Member, pareto, ranked
from tf_evonorm.search.graph import KNOWN, Graph
from tf_evonorm.search.graph_layer import layer_from_graph
from tf_evonorm.search.proxy import Run
from tf_evonorm.search.study import Study
from tf_pixpro.whole import whole

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
    rows = _read(path)
    wanted = {name: KNOWN[name] for name in BASELINES}
    wanted.update({f"candidate {member.key}": member.graph for member in best(search, top)})
    for name, graph in wanted.items():
        if name not in {row["name"] for row in rows}:
            accuracy = repeated(graph, candidate, range(seeds)).tolist()
            rows.append({"name": name, "graph": str(graph), "accuracy": accuracy})
            rows.sort(key=lambda row: -np.nan_to_num(row["accuracy"]).mean())
            _write(path, json.dumps(rows, indent=1))
    return rows


def export(search: Study, candidate: Candidate, folder: str) -> str:
    """Writes the winner: `best.json`, and `best_model`, the first anchor trained with it as a SavedModel.

    The winner is the first candidate of `rerank.json` where that is there, or else the one with the highest mean score.

    Returns:
      What was written, in words.

    Raises:
      ValueError: no candidate has scores.
    """
    rows = [row for row in _read(os.path.join(folder, "rerank.json")) if row["name"].startswith("candidate")]
    members = best(search, 1)
    if not members:
        raise ValueError(f"a layer that passed all tests is needed. Received {folder} without one. Search longer.")
    graph = Graph.read(rows[0]["graph"]) if rows else members[0].graph
    path = os.path.join(folder, "best.json")
    _write(path, graph.pruned().to_json() + "\n")
    run = Run(candidate.anchors[0], layer_from_graph(graph, **candidate.layer), candidate.images, candidate.training)
    run.train()
    with whole(os.path.join(folder, "best_model")) as partial:
        tf.saved_model.save(run.model, partial)
    return f"{path}: {graph.formula()}\n{folder}/best_model: {run.anchor.name}, accuracy {run.accuracy():.3f}"


def report(search: Study, folder: str) -> str:
    """Writes `report/index.html`, which needs no other file, and its figures as PNG.

    Returns:
      Path of the page.
    """
    os.makedirs(os.path.join(folder, "report"), exist_ok=True)
    records, good = finished(search), passed(search)
    rows = _read(os.path.join(folder, "rerank.json"))
    figures = {"rejected": _rejected(search, records)}
    if good:
        figures["progress"] = _progress(search, good)
        if len(search.anchors) > 1:
            figures["anchors"] = _scatter(search, good)
    images = []
    for name, figure in figures.items():
        path = os.path.join(folder, "report", f"{name}.png")
        figure.savefig(path, dpi=100, bbox_inches="tight")
        plt.close(figure)
        with open(path, "rb") as file:
            images.append(f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(file.read()).decode()}">')
    parts = [
        "<!doctype html><meta charset='utf-8'><title>Search of normalization-activation layers</title>",
        "<style>body{font:15px sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em .7em;text-align:left}img{max-width:100%}</style>",
        "<h1>Search of normalization-activation layers</h1>",
        _table(["", ""], _summary(search, records, good)),
        *images,
        "<h2>Best layers of the search</h2>",
        _table(
            ["candidate", "parent", *search.anchors, "mean", "formula"],
            [
                [
                    m.key,
                    _parent(search, m.key),
                    *(f"{s:.3f}" for s in m.scores),
                    f"{np.mean(m.scores):.3f}",
                    m.graph.formula(),
                ]
                for m in best(search, 10)
            ],
        ),
        "<h2>Their families</h2>",
        *(f"<pre>{html.escape(line)}</pre>" for line in _families(search, best(search, 3))),
    ]
    if rows:
        parts.append("<h2>Trained again, several seeds, images that the search has not seen</h2>")
        lines = []
        for row in rows:
            accuracy = np.nan_to_num(row["accuracy"])
            spread = accuracy.std(0, ddof=1) if len(accuracy) > 1 else np.zeros(len(search.anchors))
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(accuracy.mean(0), spread)]
            lines.append([row["name"], *cells, f"{accuracy.mean():.3f}", Graph.read(row["graph"]).formula()])
        parts.append(_table(["layer", *search.anchors, "mean", "formula"], lines))
    path = os.path.join(folder, "report", "index.html")
    _write(path, "\n".join(parts) + "\n")
    return path


def skipped(search: Study) -> collections.Counter:
    """Graphs that were passed over before any training, by reason."""
    return sum((collections.Counter(record.skipped) for record in search.records()), collections.Counter())


def seconds(records) -> collections.Counter:
    """Seconds of all candidates together, by phase."""
    return sum((collections.Counter(record.seconds) for record in records), collections.Counter())


def _summary(search, records, good):
    spent, over = seconds(records), skipped(search)
    total, cached = sum(spent.values()), sum(record.cached is not None for record in search.records())
    whole = float(np.mean([sum(record.seconds.values()) for record in good])) if good else 0.0
    lines = [
        ["candidates tried", f"{len(records)}, of which {len(good)} passed all tests"],
        ["took the scores of a layer that computes the same", cached],
        [
            "passed over by cheap checks",
            f"{sum(over.values())} ({', '.join(f'{k} {v}' for k, v in over.most_common())})",
        ],
    ]
    if total:
        shares = ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in spent.most_common())
        lines.append(["core-hours", f"{total / 3600:.2f}: {shares}"])
        lines.append(["candidates per core-hour", f"{3600 * len(records) / total:.0f}"])
    if whole:
        saved = (whole * len(records) - total + whole * (sum(over.values()) + cached)) / 3600
        lines.append(["core-hours, were all trained to the end", f"{saved + total / 3600:.1f} ({whole:.0f} s each)"])
    return lines


def _rejected(search, records):
    over = skipped(search)
    counts = {f"{name} (checks)": count for name, count in over.most_common()}
    reasons = collections.Counter(record.reason or "passed" for record in records)
    counts.update(reasons.most_common())
    total = sum(counts.values()) or 1
    figure, axes = plt.subplots(figsize=(7, 0.35 * len(counts) + 1))
    axes.barh(range(len(counts)), [100 * value / total for value in counts.values()])
    axes.set_yticks(range(len(counts)), [f"{name}: {value}" for name, value in counts.items()])
    axes.invert_yaxis()
    axes.set_xlabel("% of all graphs drawn")
    return figure


def _progress(search, good):
    figure, axes = plt.subplots(figsize=(7, 4))
    order = sorted(good, key=lambda record: (record.finished, record.number))
    scores = np.array([record.scores for record in order])
    for column, anchor in zip(scores.T, search.anchors):
        axes.plot(np.maximum.accumulate(column), label=f"{anchor}, best")
    means = scores.mean(1)
    window = search.rules.window
    axes.plot(np.maximum.accumulate(means), "k", label="mean of anchors, best")
    axes.plot(
        [means[max(0, i + 1 - window) : i + 1].mean() for i in range(len(means))], "k:", label="mean of the population"
    )
    axes.set_xlabel("candidates that passed all tests")
    axes.set_ylabel("accuracy")
    axes.legend(fontsize=8)
    return figure


def _scatter(search, good):
    scores = np.array([record.scores for record in good])
    front = pareto(scores)
    pairs = [(i, j) for i in range(len(search.anchors)) for j in range(i)]
    figure, axes = plt.subplots(1, len(pairs), figsize=(4 * len(pairs), 4), squeeze=False)
    for place, (i, j) in zip(axes[0], pairs):
        place.plot(scores[:, j], scores[:, i], ".", label="passed")
        place.plot(scores[front, j], scores[front, i], "o", mfc="none", label="Pareto frontier of all anchors")
        place.set_xlabel(f"accuracy, {search.anchors[j]}")
        place.set_ylabel(f"accuracy, {search.anchors[i]}")
    axes[0][0].legend(fontsize=8)
    return figure


def _parent(search, number):
    parent = search.records()[number].parent
    return "newcomer" if parent is None else parent


def _families(search, members):
    """For each layer its line of parents, oldest last."""
    records = {record.number: record for record in search.records()}
    for member in members:
        lines, number = [], member.key
        while number is not None:
            record = records[number]
            mean = f"{np.mean(record.scores):.3f}" if record.scores else record.state
            same = f", computes the same as {record.cached}" if record.cached is not None else ""
            lines.append(f"{number}: {mean}{same}  {record.graph.formula()}")
            number = record.parent
        yield "\n".join("  " * depth + line for depth, line in enumerate(lines))


def _table(head, rows):
    cells = "".join(f"<th>{html.escape(str(cell))}" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}" for cell in row) for row in rows)
    return f"<table><tr>{cells}{body}</table>"


def _read(path):
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return json.load(file)


def _write(path, text):
    with whole(path) as partial, open(partial, "w") as file:
        file.write(text)
