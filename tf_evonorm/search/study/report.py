"""What a search found as one HTML page with its figures, for people who would rather look than read."""

from __future__ import annotations

import base64
import collections
import html
import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from tf_evonorm.search.space.graph import KNOWN, Graph
from tf_evonorm.search.study import results
from tf_evonorm.search.study.evolution import pareto
from tf_evonorm.search.study.study import Study


def report(search: Study, folder: str) -> str:
    """Writes `report/index.html`, which needs no other file, and its figures as PNG.

    Returns:
      Path of the page.
    """
    os.makedirs(os.path.join(folder, "report"), exist_ok=True)
    records, good = results.finished(search), results.passed(search)
    known = results.read(os.path.join(folder, "known.json"), {})
    rows = results.read(os.path.join(folder, "rerank.json"), [])
    figures = {"rejected": _rejected(search, records)}
    if good:
        figures["progress"] = _progress(search, good)
        figures["accuracy"] = _accuracy(search, good, known)
        if len(search.anchors) > 1:
            figures["anchors"] = _scatter(search, good)
    images = []
    for name, figure in figures.items():
        path = os.path.join(folder, "report", f"{name}.png")
        figure.savefig(path, dpi=100, bbox_inches="tight")
        plt.close(figure)
        with open(path, "rb") as file:
            images.append(f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(file.read()).decode()}">')
    best = results.best(search, 10)
    parents = {record.number: "newcomer" if record.parent is None else record.parent for record in records}
    lines = [(m.key, parents[m.key], m.scores, m.graph) for m in best]
    lines += [(name, "known", scores, KNOWN[name]) for name, scores in known.items()]
    lines.sort(key=lambda line: -np.nan_to_num(line[2]).mean())
    parts = [
        "<!doctype html><meta charset='utf-8'><title>Search of normalization-activation layers</title>",
        "<style>body{font:15px sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em .7em;text-align:left}img{max-width:100%}</style>",
        "<h1>Search of normalization-activation layers</h1>",
        _table(["", ""], _summary(search, records, good)),
        *images,
        "<h2>Best layers of the search, and known ones trained as briefly</h2>",
        _table(
            ["layer", "parent", *search.anchors, "mean", "formula"],
            [
                [name, parent, *(f"{s:.3f}" for s in scores), f"{np.nan_to_num(scores).mean():.3f}", graph.formula()]
                for name, parent, scores, graph in lines
            ],
        ),
        "<h2>Their families</h2>",
        *(f"<pre>{html.escape(line)}</pre>" for line in _families(search, best[:3])),
    ]
    if rows:
        parts.append("<h2>Trained again, several seeds, images that the search has not seen</h2>")
        lines = []
        for row in rows:
            mean, spread = results.over_seeds(row)
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread)]
            lines.append([row["name"], *cells, f"{mean.mean():.3f}", Graph.read(row["graph"]).formula()])
        parts.append(_table(["layer", *search.anchors, "mean", "formula"], lines))
    path = os.path.join(folder, "report", "index.html")
    results.write(path, "\n".join(parts) + "\n")
    return path


def _summary(search, records, good):
    spent, over = results.seconds(search), results.skipped(search)
    total, cached = sum(spent.values()), sum(record.cached is not None for record in search.records())
    whole = float(np.mean([results.trying(record) for record in good])) if good else 0.0
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
    over = results.skipped(search)
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


def _accuracy(search, good, known):
    count = len(search.anchors)
    figure, panels = plt.subplots(1, count, figsize=(4 * count, 3), sharey=True, squeeze=False)
    histograms(panels[0], search.anchors, [record.scores for record in good], known)
    panels[0][0].set_ylabel("candidates")
    if known:
        panels[0][0].legend(fontsize=8)
    return figure


def histograms(panels, anchors, scores, known: dict):
    """Counts of accuracies, a panel for each anchor, and a line at each known layer's.

    Args:
      panels: Matplotlib's axes, one for each anchor.
      anchors: their names.
      scores: [candidates][anchors].
      known: name -> scores, one for each anchor.
    """
    for axes, anchor, values, *others in zip(panels, anchors, zip(*scores), *known.values()):
        axes.hist(values, np.arange(min(values) - 0.005, max(values) + 0.015, 0.01), color="C0", alpha=0.6)
        for number, (name, value) in enumerate(zip(known, others)):
            axes.axvline(value, color=f"C{number + 2}", label=name)
        axes.set_xlabel(f"accuracy, {anchor}")


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
