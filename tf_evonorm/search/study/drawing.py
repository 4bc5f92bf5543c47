"""Drawings of a search: a layer as a graph of boxes and arrows, and the family tree of a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_evonorm.search.space.graph import INITIAL, Graph
from tf_evonorm.search.study.study import Record

_LABELS = {"add": "+", "mul": "×", "div": "÷", "neg": "−"}
_SHOWN = 60  # characters of a formula in a family tree


def depths(graph: Graph) -> dict[int, int]:
    """Returns live node -> number of operations on the longest path to it; 0 for initial nodes."""
    found = {number: 0 for number in graph.live if number < len(INITIAL)}
    for number, _, inputs in graph.steps:
        found[number] = 1 + max(found[i] for i in inputs)
    return found


def positions(graph: Graph) -> dict[int, tuple[float, float]]:
    """Returns live node -> (x, y): x is its depth, and nodes of one depth stand around y = 0, one unit apart."""
    columns: dict[int, list[int]] = {}
    for number, depth in depths(graph).items():
        columns.setdefault(depth, []).append(number)
    return {
        number: (float(depth), (len(column) - 1) / 2 - row)
        for depth, column in columns.items()
        for row, number in enumerate(column)
    }


def draw_layer(graph: Graph, figure: Any) -> None:
    """Draws the live nodes of a graph, inputs at the left, the output at the right, and its formula above.

    Args:
      graph: the layer.
      figure: an empty Matplotlib figure; its size is set.
    """
    places = positions(graph)
    columns, rows = (int(np.ptp([place[axis] for place in places.values()])) + 1 for axis in (0, 1))
    figure.set_size_inches(1.35 * columns + 0.6, 0.8 * rows + 0.8)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_title(f"$y = {graph.latex()}$", fontsize=11)
    axes.set(xlim=(-0.6, columns - 0.4), ylim=(-rows / 2 - 0.2, rows / 2 + 0.2))
    for number, (x, y) in places.items():
        initial = number < len(INITIAL)
        label = INITIAL[number] if initial else _LABELS.get(graph.operation(number), graph.operation(number))
        output = number == graph.live[-1]
        box = {"boxstyle": "round", "fc": "#dde8f5" if initial else "#f5e6d0" if output else "white", "ec": "0.4"}
        axes.text(x, y, label, ha="center", va="center", fontsize=9, bbox=box, zorder=2)
        for order, read in enumerate(graph.inputs(number)):
            bent = 0.25 * (places[number][0] - places[read][0] > 1) + 0.2 * (graph.inputs(number)[:order].count(read))
            style = {"arrowstyle": "->", "color": "0.4", "shrinkA": 12, "shrinkB": 14}
            axes.annotate(
                "", (x, y), places[read], arrowprops={**style, "connectionstyle": f"arc3,rad={bent}"}, zorder=1
            )


def ancestors(records: Sequence[Record], number: int) -> list[Record]:
    """Returns a candidate and its ancestors, oldest first."""
    by_number = {record.number: record for record in records}
    line, current = [], by_number.get(number)
    while current is not None:
        line.append(current)
        current = None if current.parent is None else by_number[current.parent]
    return line[::-1]


def draw_family(records: Sequence[Record], number: int, labels: dict[int, str], figure: Any) -> None:
    """Draws accuracy over candidates for a candidate, its ancestors, and the other children that each of them had.

    Args:
      records: all candidates of the study.
      number: the candidate.
      labels: number -> formula, of the candidate and its ancestors.
      figure: an empty Matplotlib figure.
    """
    axes, line = figure.subplots(), ancestors(records, number)
    mean = {record.number: 100 * float(np.mean(record.scores)) for record in records if record.scores}
    chain = [record for record in line if record.number in mean]
    for parent in chain:
        children = [record for record in records if record.parent == parent.number and record.number in mean]
        for child in children:
            ends = ([parent.number, child.number], [mean[parent.number], mean[child.number]])
            axes.plot(*ends, "-", color="0.85", zorder=1)
            axes.plot(child.number, mean[child.number], ".", color="0.7", zorder=1)
    axes.plot([r.number for r in chain], [mean[r.number] for r in chain], "o-", color="C1", zorder=2)
    for record in chain:
        text = labels.get(record.number, "")
        text = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
        axes.annotate(
            f"{record.number}: {text}", (record.number, mean[record.number]), xytext=(6, 6), textcoords="offset points",
            fontsize=7,
        )  # fmt: skip
    axes.set(xlabel="candidate", ylabel="accuracy, mean of the anchors, %")
    axes.grid(alpha=0.3)
