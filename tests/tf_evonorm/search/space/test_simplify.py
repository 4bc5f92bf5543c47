"""Simplified graphs: neutral nodes go, nodes that matter stay, and NumPy and the Keras layer compute the same."""

import numpy as np
import pytest

from tf_evonorm.search.space.graph import BASELINES, Graph, evaluate, mutate, sample
from tf_evonorm.search.space.graph_layer import GraphLayer
from tf_evonorm.search.space.primitives import Protection
from tf_evonorm.search.space.simplify import same_function, simplify

NEUTRAL = {
    "add(0,1) tanh(4)": "tanh(x)",
    "mul(0,3) tanh(0)": "tanh(x)",  # a dead node
    "neg(0) neg(4) tanh(5)": "tanh(x)",
    "exp(0) max(4,1)": "exp(x)",  # always above 0
    "abs(0) neg(4) max(5,1) add(0,6)": "x + 0",  # no graph is without nodes
    "abs(0) abs(4)": "abs(x)",
    "sigmoid(0) max(4,1) tanh(1) add(5,6) mul(0,7)": "x * sigmoid(x)",
    "add(0,2) std_batch(4) div(0,5)": "x / std_batch(x)",  # a shift of what is centred
    "mean_batch(0) neg(4) add(0,5) std_instance(6) div(0,7)": "x / std_instance(x)",
    "neg(0) rms_group(4) div(0,5)": "x / rms_group(x)",
    "mean_batch(2) add(0,4)": "x + v0",
    "mean_batch(0) neg(4) add(0,5) std_batch(6) std_batch(0) div(6,7)": "(x + (-mean_batch(x))) / std_batch(x)",
    "max(0,0) max(4,0) square(5)": "square(x)",
    "std_batch(0) std_batch(4)": "std_batch(0)",  # of what is constant over the batch
}
NEEDED = (
    "exp(0) log(4)",  # sign(x) ln(|x| + 1e-5) is not quite the inverse
    "mul(0,3) div(4,3)",  # y + 1e-5 is not quite y
    "std_batch(1) add(0,4)",  # sqrt(1e-5), which is small but not 0
    "neg(0) max(0,4) mul(4,5)",
    "square(0) sqrt(4)",  # |x|, without a node of that name in it
    "std_instance(0) std_batch(0) max(4,5) div(0,6)",
    "mean_group(0) neg(4) add(0,5)",
    "mean_layer(0) neg(4) add(0,5)",
    "rms_batch(0) std_batch(0) div(4,5) mul(0,6)",
    "exp(2) exp(4) neg(5) max(0,6)",  # the maximum is nearly always x
)


@pytest.mark.parametrize("text", NEUTRAL)
def test_neutral_nodes_go(text):
    assert simplify(Graph.read(text)).formula() == NEUTRAL[text]


@pytest.mark.parametrize("text", [*NEEDED, *map(str, BASELINES.values())])
def test_needed_nodes_stay(text):
    graph = Graph.read(text)
    assert len(simplify(graph).nodes) == len(graph.nodes)


def test_protections_decide_what_is_neutral():
    graph = Graph.read("mul(0,3) div(4,3) tanh(5)")
    assert simplify(graph, Protection(division=0.0)).formula() == "tanh(x)"
    assert len(simplify(graph).nodes) == 3


def random_graphs(count):
    """Random graphs, and mutations of the paper's layers."""
    rng = np.random.default_rng(7)
    for number in range(count):
        start = list(BASELINES.values())[number % len(BASELINES)]
        yield mutate(start, rng) if number % 2 else sample(rng)


def test_values_stay_the_same():
    rng, smaller = np.random.default_rng(8), 0
    for graph in random_graphs(60):
        found = simplify(graph)
        smaller += len(found.nodes) < len(graph.pruned().nodes)
        for scale in (0.1, 1.0, 5.0):
            x, v0, v1 = scale * rng.normal(size=[5, 2, 3, 12]), rng.normal(size=12), rng.normal(size=12)
            want, got = (evaluate(g, x, v0, v1, groups=3) for g in (graph, found))
            np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10, err_msg=f"{graph} -> {found}")
    assert smaller > 5


@pytest.mark.parametrize("text", [text for text in NEUTRAL if "batch" in text])
def test_the_layer_stays_the_same_in_inference(text):
    rng, layers = np.random.default_rng(9), [GraphLayer(g) for g in (Graph.read(text), simplify(Graph.read(text)))]
    for training in (True, True, True, False):
        x = rng.normal(1, 2, size=[4, 3, 3, 8]).astype(np.float32)
        want, got = (layer(x, training=training) for layer in layers)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("tanh(0)", "neg(0) tanh(4) neg(5)", True),
        ("max(0,1)", "abs(0) add(0,4) max(5,1) std_layer(1) max(0,1)", True),
        ("std_group(0) div(0,4)", "std_layer(0) div(0,4)", False),
        ("std_instance(0) div(0,4)", "std_group(0) div(0,4)", False),
        ("mul(0,3)", "mul(0,2)", False),
        ("max(0,1)", "max(0,2)", False),
        ("rms_batch(0) div(0,4)", "std_batch(0) div(0,4)", False),
        ("tanh(0)", "tanh(0) tanh(4)", False),
    ],
)
def test_the_same_function(one, other, same):
    one, other = Graph.read(one), Graph.read(other)
    assert same_function(one, other) == same_function(other, one) == same


def test_nothing_finite_proves_nothing():
    exact = Protection(division=0.0, sign_of_zero=0.0)
    graph = Graph.read("div(0,1)")
    assert not same_function(graph, graph, exact)
    assert simplify(graph, exact) == graph.canonical()
