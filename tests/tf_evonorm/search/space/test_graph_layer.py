"""The layer of a graph: known graphs are the hand-written layers, gradients and moving values too; NumPy's numbers;
files."""

import functools

import numpy as np
import pytest
import tensorflow as tf

import tf_evonorm
from tf_evonorm.search.space import graph as graphs
from tf_evonorm.search.space.graph import BASELINES, Graph, sample
from tf_evonorm.search.space.graph_layer import GraphLayer, layer_from_graph
from tf_evonorm.search.space.primitives import Protection

LAYERS = {
    "b0": tf_evonorm.EvoNormB0,
    "b1": tf_evonorm.EvoNormB1,
    "b2": tf_evonorm.EvoNormB2,
    "s0": functools.partial(tf_evonorm.EvoNormS0, groups=2),
    "s1": functools.partial(tf_evonorm.EvoNormS1, groups=2),
    "s2": functools.partial(tf_evonorm.EvoNormS2, groups=2),
    "bn_relu": tf_evonorm.BatchNormAct,
    "gn_relu": functools.partial(tf_evonorm.GroupNormAct, groups=2),
    "frn": functools.partial(tf_evonorm.FilterResponseNormAct, epsilon=1e-5, apply_act=False),
}


def step(layer, x):
    """Outputs and gradients of a training call, then the output of an inference call."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(y * tf.reshape(tf.sin(tf.range(tf.size(y), dtype=y.dtype)), y.shape))
    names = {w.name.split("/")[-1].split(":")[0]: w for w in layer.trainable_weights}
    slopes = dict(zip(["x", *names], tape.gradient(loss, [x, *names.values()])))
    return y, slopes, layer(x)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("axis", [-1, 1])
def test_known_graphs_equal_the_layers_written_by_hand(name, axis, float64):
    rng = np.random.default_rng(0)
    shape = (4, 5, 3, 6) if axis == -1 else (4, 6, 5, 3)
    x = tf.constant(rng.normal(0.3, 1.5, shape))
    hand = LAYERS[name](axis=axis)
    graph = GraphLayer(BASELINES[name], groups=2, division_epsilon=0.0, axis=axis)
    hand.build(x.shape), graph.build(x.shape)
    first, second = rng.normal(1, 0.3, 6), rng.normal(0, 0.3, 6)
    inside = name.endswith("_relu")  # where gamma and beta stand inside the ReLU, which v1 and v0 do in the graph
    pairs = {"gamma": "v1", "beta": "v0"} if inside else {"gamma": "gamma", "beta": "beta", "v": "v1"}
    pairs = {a: b for a, b in pairs.items() if hasattr(hand, a)}
    for number, (a, b) in enumerate(pairs.items()):
        for layer, weight in ((hand, a), (graph, b)):
            getattr(layer, weight).assign((first, second, first + 0.1)[number])
    want, slopes, still = step(hand, x)
    got, found, quiet = step(graph, x)
    np.testing.assert_allclose(got, want, 1e-10, 1e-10)
    for a, b in {"x": "x", **pairs}.items():
        np.testing.assert_allclose(found[b], slopes[a], 1e-8, 1e-8)
    if name != "bn_relu":  # whose moving variance divides by n - 1, as the baseline's documentation says
        np.testing.assert_allclose(quiet, still, 1e-10, 1e-10)
    else:
        moved = 0.9 + 0.1 * x.numpy().var((0, 1, 2) if axis == -1 else (0, 2, 3))
        np.testing.assert_allclose(graph.moving["7"], moved, 1e-12)


def test_random_graphs_give_the_numbers_of_numpy(float64):
    rng = np.random.default_rng(1)
    x = rng.normal(0.3, 1.5, [2, 3, 3, 4])
    compared = 0
    for _ in range(150):
        graph = sample(rng)
        layer = GraphLayer(graph, groups=2)
        layer.build(x.shape)
        v = {"v0": rng.normal(size=4), "v1": rng.normal(size=4)}
        for name, value in v.items():
            if hasattr(layer, name):
                getattr(layer, name).assign(value)
        want = graphs.evaluate(graph, x, v["v0"], v["v1"], groups=2)
        got = layer(tf.constant(x), training=True)
        np.testing.assert_allclose(got, want, 1e-9, 1e-9)
        compared += bool(np.isfinite(want).all() and want.std() > 0)
        assert len(layer.non_trainable_weights) == len(graph.batch_nodes)
    assert compared > 40


def test_second_derivatives_are_those_of_differences(float64):
    """The stability test differentiates twice, through the mean inside the variance too."""
    rng = np.random.default_rng(2)
    x = tf.constant(rng.normal(size=[3, 2, 2, 4]))
    direction = tf.constant(rng.normal(size=x.shape))

    def norm_of_slope(layer, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tf.norm(tape.gradient(loss, x))

    for name in ("b0", "s0", "bn_relu"):
        layer = GraphLayer(BASELINES[name], groups=2, beta_initializer=tf.keras.initializers.Constant(0.7))
        with tf.GradientTape() as tape:
            tape.watch(x)
            norm = norm_of_slope(layer, x)
        exact = tf.reduce_sum(tape.gradient(norm, x) * direction)
        h = 1e-5
        ends = [norm_of_slope(layer, x + sign * h * direction) for sign in (1, -1)]
        np.testing.assert_allclose(exact, (ends[0] - ends[1]) / (2 * h), 1e-5)


def test_gradients_stay_finite_where_a_root_is_zero():
    x = tf.zeros([2, 3, 3, 4])
    for text in ("sqrt(0)", "sub(0)", "sqrt(0) div(0,4)", "std_instance(0) div(0,4)"):
        if text.startswith("sub"):
            with pytest.raises(ValueError, match="an operation is one of"):
                GraphLayer(text)
            continue
        layer = GraphLayer(text)
        _, slopes, _ = step(layer, x)
        assert all(np.isfinite(slope).all() for slope in slopes.values())


def test_protections_reach_the_numbers():
    x = tf.constant([[2.0], [-2.0]])
    options = Protection(division=0.5)
    want = graphs.evaluate(Graph.read("div(0,0)"), x.numpy(), [0], [1], options)
    np.testing.assert_allclose(GraphLayer("div(0,0)", division_epsilon=0.5)(x), want)
    np.testing.assert_allclose(want, 2 / 2.5)


def test_a_file_gives_layers_for_backbones(tmp_path):
    (tmp_path / "x.json").write_text(BASELINES["b0"].to_json())
    norm_act = tf_evonorm.layer_from_graph(tmp_path / "x.json", momentum=0.5)
    model = tf_evonorm.backbones.resnet(18, norm_act, blocks=(1, 1), width=0.125, stem="small")
    layers = [layer for layer in model.layers if isinstance(layer, GraphLayer)]
    assert len(layers) == 6 and {layer.momentum for layer in layers} == {0.5}
    assert {layer.apply_act for layer in layers} == {True, False}
    assert layer_from_graph(BASELINES["s0"])().graph == BASELINES["s0"]
    kept = tf_evonorm.exclude_from_weight_decay(model)
    assert len(kept) == sum(len(layer.trainable_weights) for layer in layers)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="a graph in JSON is"):
        layer_from_graph(tmp_path / "bad.json")
