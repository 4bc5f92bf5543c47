"""The report of a search: one HTML page with its figures."""

from __future__ import annotations

import base64
import collections
import html
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tf_evonorm.search.space.graph import BASELINES, Graph
from tf_evonorm.search.space.simplify import simplify
from tf_evonorm.search.study import drawing, results
from tf_evonorm.search.study.evolution import Member, pareto
from tf_evonorm.search.study.study import Record, Study

_HEAD = """<!doctype html><meta charset='utf-8'><title>Search of normalization-activation layers</title>
<style>body{font:15px sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em .7em;text-align:left}
img{max-width:100%}</style>
<h1>Search of normalization-activation layers</h1>"""


def report(search: Study, folder: str) -> str:
    """Writes `report/index.html`, which needs no other file, and its figures as PNG.

    Args:
      search: the study.
      folder: folder of the search.

    Returns:
      Path of the page.
    """
    os.makedirs(os.path.join(folder, "report"), exist_ok=True)
    records, passed = results.finished(search), results.passed(search)
    best = results.best(search, 10)
    parts = [
        _HEAD,
        _table(["", ""], _summary(search, records, passed)),
        *_figures(search, folder, records, passed),
        "<h2>Best layers of the search, and baselines trained for as long</h2>",
        _best_layers(search, best, results.baselines(folder)),
        *(_drawn(simplify(member.graph, search.protection), member.key) for member in best),
        "<h2>The family of the best one, and the ancestors of the best three</h2>",
        _family(search, best),
        *(f"<pre>{html.escape(line)}</pre>" for line in _ancestors(search, best[:3])),
    ]
    rows = results.read(os.path.join(folder, "rerank.json"), [])
    if rows:
        parts += [
            "<h2>Retrained with several seeds on images that the search has not seen</h2>",
            _retrained(search, rows),
        ]
    path = os.path.join(folder, "report", "index.html")
    results.write(path, "\n".join(parts) + "\n")
    return path


def _summary(search: Study, records: list[Record], passed: list[Record]) -> list[list]:
    spent, skipped = results.seconds_by_phase(results.timeline(search)), results.skipped(search)
    total, cached = sum(spent.values()), sum(record.cached is not None for record in search.records())
    full = float(np.mean([results.trying(record) for record in passed])) if passed else 0.0
    reasons = ", ".join(f"{reason} {count}" for reason, count in skipped.most_common())
    lines: list[list] = [
        ["candidates tried", f"{len(records)}, of which {len(passed)} passed all tests"],
        ["took the scores of a layer that computes the same function", cached],
        ["skipped by cheap checks", f"{sum(skipped.values())} ({reasons})"],
    ]
    if total:
        shares = ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in spent.items())
        lines.append(["core-hours", f"{total / 3600:.2f}: {shares}"])
        lines.append(["candidates per core-hour", f"{3600 * len(records) / total:.0f}"])
    if full:
        saved = (full * len(records) - total + full * (sum(skipped.values()) + cached)) / 3600
        lines.append(["core-hours if all were trained to the end", f"{saved + total / 3600:.1f} ({full:.0f} s each)"])
    return lines


def _best_layers(search: Study, best: list[Member], baselines: dict) -> str:
    parents = {record.number: "newcomer" if record.parent is None else record.parent for record in search.records()}
    lines = [(member.key, parents[member.key], member.scores, member.graph) for member in best]
    lines += [(name, "baseline", tuple(scores), BASELINES[name]) for name, scores in baselines.items()]
    lines.sort(key=lambda line: -np.nan_to_num(line[2]).mean())
    rows = [
        [
            name,
            parent,
            *(f"{score:.3f}" for score in scores),
            f"{np.nan_to_num(scores).mean():.3f}",
            simplify(graph, search.protection).formula(),
        ]
        for name, parent, scores, graph in lines
    ]
    return _table(["layer", "parent", *search.anchors, "mean", "formula"], rows)


def _retrained(search: Study, rows: list[dict]) -> str:
    lines = []
    for row in rows:
        mean, spread = results.over_seeds(row)
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread)]
        lines.append(
            [row["name"], *cells, f"{mean.mean():.3f}", simplify(Graph.read(row["graph"]), search.protection).formula()]
        )
    return _table(["layer", *search.anchors, "mean", "formula"], lines)


def _ancestors(search: Study, members: list[Member]) -> Iterator[str]:
    """Yields for each layer the chain of its parents, oldest last."""
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


def _drawn(graph: Graph, key: int) -> str:
    """Returns the drawing of a layer with its formula, as HTML."""
    figure = _figure()
    drawing.draw_layer(graph, figure)
    return f"<h3>Candidate {key}</h3>{_svg(figure, f'candidate {key}')}"


def _family(search: Study, best: list[Member]) -> str:
    if not best:
        return ""
    records, figure = search.records(), _figure(figsize=(8, 4))
    line = drawing.ancestors(records, best[0].key)
    labels = {record.number: simplify(record.graph, search.protection).formula() for record in line}
    drawing.draw_family(records, best[0].key, labels, figure)
    return _svg(figure, "family tree")


def _svg(figure: Any, name: str) -> str:
    """Returns a figure as a scalable HTML image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="{name}" src="data:image/svg+xml;base64,{encoded}">'


def _table(head: Iterable, rows: Iterable[Iterable]) -> str:
    cells = "".join(f"<th>{html.escape(str(cell))}" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}" for cell in row) for row in rows)
    return f"<table><tr>{cells}{body}</table>"


def _figures(search: Study, folder: str, records: list[Record], passed: list[Record]) -> Iterator[str]:
    """Writes each figure as PNG and yields it as an HTML image."""
    figures = {"rejected": _rejected(search, records)}
    if passed:
        figures["progress"] = _progress(search, passed)
        figures["accuracy"] = _accuracy(search, passed, results.baselines(folder))
        if len(search.anchors) > 1:
            figures["anchors"] = _scatter(search, passed)
    for name, figure in figures.items():
        path = os.path.join(folder, "report", f"{name}.png")
        figure.savefig(path, dpi=100, bbox_inches="tight")
        with open(path, "rb") as file:
            yield f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(file.read()).decode()}">'


def _figure(**settings: Any) -> Any:
    """Returns an empty Matplotlib figure, outside of pyplot's global state."""
    from matplotlib.figure import Figure  # imported only where a figure is drawn

    return Figure(**settings)


def _rejected(search: Study, records: list[Record]) -> Any:
    counts = {f"{name} (checks)": count for name, count in results.skipped(search).most_common()}
    counts.update(collections.Counter(record.reason or "passed" for record in records).most_common())
    total = sum(counts.values()) or 1
    figure = _figure(figsize=(7, 0.35 * len(counts) + 1))
    axes = figure.subplots()
    axes.barh(range(len(counts)), [100 * value / total for value in counts.values()])
    axes.set_yticks(range(len(counts)), [f"{name}: {value}" for name, value in counts.items()])
    axes.invert_yaxis()
    axes.set_xlabel("% of all proposed graphs")
    return figure


def _progress(search: Study, passed: list[Record]) -> Any:
    figure = _figure(figsize=(7, 4))
    axes = figure.subplots()
    own = {record.number for record in passed}
    line = [(spent / 3600, record) for spent, record in results.timeline(search) if record.number in own]
    hours, scores = [spent for spent, _ in line], np.array([record.scores for _, record in line])
    for column, anchor in zip(scores.T, search.anchors):
        axes.plot(hours, np.maximum.accumulate(column), label=f"{anchor}, best")
    means, window = scores.mean(1), search.rules.window
    population = [means[max(0, i + 1 - window) : i + 1].mean() for i in range(len(means))]
    axes.plot(hours, np.maximum.accumulate(means), "k", label="mean of anchors, best")
    axes.plot(hours, population, "k:", label="mean of the population")
    axes.set_xlabel("core-hours")
    axes.set_ylabel("accuracy")
    axes.legend(fontsize=8)
    return figure


def _accuracy(search: Study, passed: list[Record], baselines: dict) -> Any:
    count = len(search.anchors)
    figure = _figure(figsize=(4 * count, 3))
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    histograms(panels, search.anchors, [record.scores for record in passed], baselines)
    panels[0].set_ylabel("candidates")
    if baselines:
        panels[0].legend(fontsize=8)
    return figure


def histograms(panels: Sequence, anchors: Sequence[str], scores: Sequence, baselines: dict) -> None:
    """Draws a histogram of accuracies for each anchor, with a vertical line for each baseline.

    Args:
      panels: Matplotlib axes, one for each anchor.
      anchors: their names.
      scores: accuracies [candidates][anchors].
      baselines: name -> scores, one for each anchor.
    """
    for axes, anchor, values, *others in zip(panels, anchors, zip(*scores), *baselines.values()):
        axes.hist(values, np.arange(min(values) - 0.005, max(values) + 0.015, 0.01), color="C0", alpha=0.6)
        for number, (name, value) in enumerate(zip(baselines, others)):
            axes.axvline(value, color=f"C{number + 2}", label=name)
        axes.set_xlabel(f"accuracy, {anchor}")


def _scatter(search: Study, passed: list[Record]) -> Any:
    scores = np.array([record.scores for record in passed])
    front = pareto(scores)
    pairs = [(i, j) for i in range(len(search.anchors)) for j in range(i)]
    figure = _figure(figsize=(4 * len(pairs), 4))
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    for panel, (i, j) in zip(panels, pairs):
        panel.plot(scores[:, j], scores[:, i], ".", label="passed")
        panel.plot(scores[front, j], scores[front, i], "o", mfc="none", label="Pareto frontier of all anchors")
        panel.set_xlabel(f"accuracy, {search.anchors[j]}")
        panel.set_ylabel(f"accuracy, {search.anchors[i]}")
    panels[0].legend(fontsize=8)
    return figure
