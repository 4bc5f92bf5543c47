"""Cheap checks on graphs with a single fault, the shares of a survey of 5,000 graphs, fingerprints."""

import collections

import numpy as np
import pytest

from tf_evonorm.search.space.checks import Checks, fingerprint
from tf_evonorm.search.space.graph import BASELINES, Graph, mutate, sample
from tf_evonorm.search.space.primitives import Protection


@pytest.mark.parametrize("name", BASELINES)
def test_known_layers_pass(name):
    assert Checks().reason(BASELINES[name]) is None
    assert Checks(batch=True).reason(BASELINES[name]) == ("batch" if name in ("b0", "b1", "b2", "bn_relu") else None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("add(2,3)", "independent"),  # reads no x
        ("neg(0) add(0,4)", "independent"),  # x - x
        ("exp(0) exp(4) exp(5) exp(6)", "not_finite"),  # exp(exp(exp(exp(x)))) is infinite for x > 1.4
        ("mul(0,2)", "constant"),  # x * v0, which starts as 0
        ("std_instance(0)", "flat"),
        ("mean_layer(0) tanh(4)", "flat"),
        ("square(0) std_batch(4) neg(0)", None),  # the batch node is dead
    ],
)
def test_each_fault_has_its_reason(text, reason):
    graph = Graph.read(text)
    assert Checks(batch=True).reason(graph) == reason
    if reason:
        others = {
            name: name != reason and name != "batch" for name in ("independent", "not_finite", "constant", "flat")
        }
        assert Checks(**others).reason(graph) != reason
    assert Checks(independent=False, not_finite=False, constant=False, flat=False).reason(graph) is None


def test_division_by_zero_is_found_where_it_is_not_protected():
    graph = Graph.read("div(0,1)")
    bare = Protection(division=0.0, sign_of_zero=0.0)
    assert Checks().reason(graph, bare) == "not_finite"
    assert Checks().reason(graph) is None


def test_shares_of_random_graphs():
    """A survey of 5,000 other graphs: 65.1 % have no path from x, 68.0 % are independent of x, 80.1 % are flat."""
    rng = np.random.default_rng(0)
    graphs = [sample(rng) for _ in range(2000)]
    reasons = collections.Counter(Checks().reason(graph) for graph in graphs)
    share = {name: count / len(graphs) for name, count in reasons.items()}
    assert share["independent"] == pytest.approx(0.68, abs=0.05)
    assert share[None] == pytest.approx(0.197, abs=0.04)
    assert sum(0 not in graph.live for graph in graphs) / len(graphs) == pytest.approx(0.651, abs=0.04)


def test_a_fingerprint_is_of_the_function():
    names = {name: fingerprint(graph) for name, graph in BASELINES.items()}
    assert len(set(names.values())) == len(BASELINES)
    rng = np.random.default_rng(1)
    for name, graph in BASELINES.items():
        dead = Graph.read("exp(0) neg(0) " + " ".join(_moved(graph)))
        assert fingerprint(dead) == names[name]
    same = [("add(0,3)", "neg(0) neg(4) add(3,5)"), ("square(0)", "mul(0,0)"), ("abs(0)", "neg(0) max(0,4)")]
    for a, b in same:
        assert fingerprint(Graph.read(a)) == fingerprint(Graph.read(b))
    # v0 starts as 0 and v1 as 1, but they are learned, so these are two functions.
    assert fingerprint(Graph.read("add(0,2)")) != fingerprint(Graph.read("mul(0,3)"))
    for _ in range(300):
        graph = mutate(sample(rng), rng)
        assert fingerprint(graph) == fingerprint(graph.canonical()) == fingerprint(graph)


def _moved(graph):
    """The words of a graph behind two dead nodes."""
    return [f"{node.operation}({','.join(str(i if i < 4 else i + 2) for i in node.inputs)})" for node in graph.nodes]
