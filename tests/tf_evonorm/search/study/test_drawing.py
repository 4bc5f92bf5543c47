"""Drawings: where nodes stand, every live node and arrow is there, and the line of ancestors."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from tf_evonorm.search.space.graph import BASELINES, Graph, sample
from tf_evonorm.search.study import drawing
from tf_evonorm.search.study.study import Record


def test_depth_is_the_longest_path():
    graph = Graph.read("mul(0,3) sigmoid(4) mul(0,5) std_group(0) div(6,7)")
    assert drawing.depths(graph) == {0: 0, 3: 0, 4: 1, 5: 2, 6: 3, 7: 1, 8: 4}
    places = drawing.positions(graph)
    assert places[8] == (4.0, 0.0) and {places[4], places[7]} == {(1.0, 0.5), (1.0, -0.5)}


@pytest.mark.parametrize("name", BASELINES)
def test_no_two_nodes_stand_at_one_position_and_arrows_point_right(name):
    graph = BASELINES[name]
    places = drawing.positions(graph)
    assert set(places) == set(graph.live) and len(set(places.values())) == len(places)
    assert all(places[i][0] < places[number][0] for number, _, inputs in graph.steps for i in inputs)


@pytest.mark.parametrize(
    "graph", [*BASELINES.values(), Graph.read("add(0,0)"), sample(np.random.default_rng(3))], ids=str
)
def test_every_node_and_arrow_is_drawn(graph, tmp_path):
    figure = Figure()
    drawing.draw_layer(graph, figure)
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts if text.get_text()]
    assert len(texts) == len(graph.live)
    arrows = [text for text in axes.texts if not text.get_text()]
    assert len(arrows) == sum(len(inputs) for _, _, inputs in graph.steps)
    figure.savefig(tmp_path / "layer.svg")  # the formula can be typeset
    assert (tmp_path / "layer.svg").stat().st_size > 1000


def record(number, parent, scores):
    state = "passed" if scores else "rejected"
    return Record(number, BASELINES["b0"], parent, state, scores, "", None, {}, {}, {}, "w", 1, None, None)


RECORDS = [
    record(0, None, (0.1, 0.3)),
    record(1, 0, None),
    record(2, 0, (0.2, 0.4)),
    record(3, None, (0.5, 0.5)),
    record(4, 2, (0.6, 0.4)),
    record(5, 2, (0.1, 0.1)),
]


def test_ancestors_are_followed_to_the_newcomer():
    assert [one.number for one in drawing.ancestors(RECORDS, 4)] == [0, 2, 4]
    assert [one.number for one in drawing.ancestors(RECORDS, 3)] == [3]


def test_the_family_has_the_line_and_the_other_children():
    figure = Figure()
    drawing.draw_family(RECORDS, 4, {0: "x", 2: "tanh(x)", 4: "x * " * 40}, figure)
    (axes,) = figure.axes
    line = axes.lines[-1].get_xydata()
    np.testing.assert_allclose(line, [[0, 20], [2, 30], [4, 50]])  # mean accuracies in per cent
    drawn = {tuple(np.round(point, 6)) for one in axes.lines for point in one.get_xydata()}
    assert (5, 10) in drawn and (3, 50) not in drawn
    texts = [text.get_text() for text in axes.texts]
    assert texts[1] == "2: tanh(x)" and texts[2].endswith("…")
