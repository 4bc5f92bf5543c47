"""Graphs: live nodes, canonical form, formulas, text and JSON, NumPy values, sampling, mutation, hostile input."""

import hashlib
import json
import random
import string

import numpy as np
import pytest

from tf_evonorm.search.space import graph as graphs
from tf_evonorm.search.space import primitives
from tf_evonorm.search.space.graph import BASELINES, Graph, Space, mutate, sample
from tf_evonorm.search.space.primitives import Protection

EXACT = Protection(division=0.0)


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(0)
    return [sample(rng) for _ in range(5000)]


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    return rng.normal(0.3, 1.5, [3, 4, 5, 6]), rng.normal(size=6), rng.normal(1, 0.3, 6)


def test_random_graphs_run_mutate_and_come_back(many, inputs):
    rng = np.random.default_rng(2)
    for graph in many:
        assert Graph.read(str(graph)) == Graph.read(graph.to_json()) == Graph.read(json.loads(graph.to_json())) == graph
        child = mutate(graph, rng)
        assert len(child.nodes) == 10 and sum(a != b for a, b in zip(graph.nodes, child.nodes)) <= 1
        y = graphs.evaluate(graph, *inputs, groups=3)
        assert y.shape == inputs[0].shape
        for same in (graph.pruned(), graph.canonical()):
            np.testing.assert_array_equal(graphs.evaluate(same, *inputs, groups=3), y)
        assert graph.canonical() == graph.pruned().canonical() == graph.canonical().canonical()
        assert len(graph.canonical().nodes) <= len(graph.pruned().nodes) == len(graph.steps)
        assert len(graph.formula()) < 3000 and graph.latex()


def test_a_seed_gives_the_same_graphs_for_ever(many):
    text = "\n".join(map(str, many[:30]))
    expected = "e7bc4e1e9e03a1d2bb21e419556fbcd3a66d544e546768a70e0569efb2a75d43"
    assert hashlib.sha256(text.encode()).hexdigest() == expected


def test_operations_are_drawn_uniformly():
    rng = np.random.default_rng(3)
    for by, share in (("families", 1 / 15 / 4), ("operations", 1 / 24)):
        drawn = [primitives.draw(rng, by) for _ in range(24000)]
        assert set(drawn) == set(primitives.ARITY)
        found = drawn.count("rms_group") / len(drawn)
        assert abs(found - share) < 5 * np.sqrt(share / len(drawn))
    drawn = {primitives.draw(rng, without=("batch",)) for _ in range(2000)}
    assert drawn == {name for name in primitives.ARITY if not name.endswith("_batch")}
    with pytest.raises(ValueError, match=r"by must be one of .* Received by='x'"):
        primitives.draw(rng, "x")


def test_mutation_changes_every_node_alike(many):
    rng = np.random.default_rng(4)
    parent = many[0]
    changed = np.zeros(10)
    for _ in range(5000):
        changed += [a != b for a, b in zip(parent.nodes, mutate(parent, rng).nodes)]
    # Of 5,000 draws of ten nodes each gets 500, less the few that come out as they were.
    assert changed.min() > 380 and changed.max() < 620


def test_mutation_respects_its_space(many):
    rng, space = np.random.default_rng(5), Space(without=("batch",), by="operations")
    start = sample(rng, space)
    for _ in range(300):
        start = mutate(start, rng, space)
        assert "batch" not in str(start)


def test_known_graphs_are_the_formulas_of_the_paper(inputs):
    x, v0, v1 = inputs
    e = 1e-5

    def std(axes, x=x):
        return np.sqrt(x.var(axes, keepdims=True) + e)

    def rms(axes):
        return np.sqrt((x * x).mean(axes, keepdims=True) + e)

    grouped = x.reshape(3, 4, 5, 3, 2)
    group_std = np.repeat(np.sqrt(grouped.var((1, 2, 4), keepdims=True) + e), 2, -1).reshape(3, 1, 1, 6)
    group_rms = np.repeat(np.sqrt((grouped**2).mean((1, 2, 4), keepdims=True) + e), 2, -1).reshape(3, 1, 1, 6)
    group_mean = np.repeat(grouped.mean((1, 2, 4), keepdims=True), 2, -1).reshape(3, 1, 1, 6)
    b, i = (0, 1, 2), (1, 2)
    expected = {
        "b0": x / np.maximum(std(b), v1 * x + std(i)),
        "b1": x / np.maximum(std(b), (x + 1) * rms(i)),
        "b2": x / np.maximum(std(b), rms(i) - x),
        "s0": x / (1 + np.exp(-v1 * x)) / group_std,
        "s1": x / (1 + np.exp(-x)) / group_std,
        "s2": x / (1 + np.exp(-x)) / group_rms,
        "bn_relu": np.maximum((x - x.mean(b, keepdims=True)) / std(b) * v1 + v0, 0),
        "gn_relu": np.maximum((x - group_mean) / group_std * v1 + v0, 0),
        "frn": x / rms(i),
    }
    assert set(expected) == set(BASELINES)
    for name, want in expected.items():
        np.testing.assert_allclose(graphs.evaluate(BASELINES[name], x, v0, v1, EXACT, groups=3), want, 1e-12, 1e-12)
        assert len(BASELINES[name].nodes) <= 10


def test_primitives_by_hand():
    def run(operation, *values, **options):
        return primitives.apply(operation, [np.array([v], float) for v in values], Protection(**options))[0]

    e = 0.25
    assert run("div", 3, -2, division=e) == 3 / -2.25
    assert run("div", 3, 0, division=e) == 12
    assert np.isinf(run("div", 3, 0, sign_of_zero=0.0))
    assert run("log", -3.75, logarithm=e) == -np.log(4)
    assert run("log", 0, logarithm=e) == 0
    assert run("sqrt", -9) == -3
    assert run("max", -9, 2) == 2 and run("neg", 2) == -2 and run("square", -3) == 9 and run("abs", -3) == 3


def test_live_nodes_and_canonical_form_by_hand():
    graph = Graph.read("add(0,2) exp(0) mul(5,5) add(2,0) max(7,4)")
    assert graph.live == (0, 2, 4, 7, 8)
    assert str(graph.pruned()) == "add(0,2) add(2,0) max(5,4)"
    # Both sums are one; what is left is max(s, s).
    assert str(graph.canonical()) == "add(0,2) max(4,4)"
    assert Graph.read("add(0,3) neg(4)").canonical() == Graph.read("exp(0) add(3,0) neg(5)").canonical()
    assert Graph.read("div(0,3)").canonical() != Graph.read("div(3,0)").canonical()
    assert BASELINES["b0"].batch_nodes == (4,) and BASELINES["s0"].batch_nodes == ()
    assert Graph.read("std_batch(0) neg(0)").batch_nodes == ()


def test_formulas_are_readable():
    assert BASELINES["b0"].formula() == "x / max(std_batch(x), ((v1 * x) + std_instance(x)))"
    assert BASELINES["s2"].latex() == r"\frac{x \cdot \sigma(x)}{\mathrm{rms}_{w,h,c/g}(x)}"
    # A part that is used many times is written once, so a formula cannot grow without bound.
    doubling = Graph.read(" ".join(["add(0,3)"] + [f"mul({i},{i})" for i in range(4, 60)]))
    assert "where" in doubling.formula() and len(doubling.formula()) < 5000


@pytest.mark.parametrize(
    "written",
    [
        "",
        "add(0)",
        "add(0,4)",
        "neg(-1)",
        "boom(0)",
        "__import__('os')",
        "neg(0) add(0,5)",
        '{"format": "evonorm-graph-1", "nodes": [["neg", [true]]]}',
        '{"format": "evonorm-graph-1", "nodes": [["neg", [0.0]]]}',
        '{"format": "evonorm-graph-1", "nodes": [[["neg"], [0]]]}',
        '{"format": "evonorm-graph-1", "nodes": {}}',
        '{"format": "evonorm-graph-1", "nodes": []}',
        '{"format": "other", "nodes": [["neg", [0]]]}',
        "[" * 90000,
        "neg(0) " * 101,
        "x" * 100001,
        b"\xff\xfe",
        None,
        3,
    ],
    ids=lambda written: str(written)[:30],
)
def test_a_wrong_graph_is_a_clear_error(written):
    with pytest.raises(ValueError, match="Received"):
        Graph.read(written)


def test_ten_thousand_fuzzed_graphs_crash_nothing():
    rng = random.Random(0)
    base = [BASELINES[name].to_json() for name in BASELINES] + [str(BASELINES[name]) for name in BASELINES]
    values = [None, True, -1, 1e400, 10**40, "add", [], {}, [[]], "mul", 0, 3]
    good = 0

    def spoiled():
        text = rng.choice(base)
        if rng.random() < 0.5:
            for _ in range(rng.randint(1, 4)):
                place = rng.randrange(len(text))
                letter = rng.choice(string.printable + "\x00\udcffé")
                text = text[:place] + rng.choice(["", letter, letter * 3]) + text[place + rng.randint(0, 2) :]
            return text
        tree = json.loads(rng.choice(base[: len(BASELINES)]))
        node = rng.choice(tree["nodes"])
        rng.choice([node, node[1], tree["nodes"]])[0] = rng.choice(values)
        return tree if rng.random() < 0.5 else json.dumps(tree)

    for _ in range(10000):
        try:
            graph = Graph.read(spoiled())
        except ValueError:
            continue
        assert Graph.read(graph.to_json()) == graph
        good += 1
    assert 100 < good < 9000
