"""Normalization and activation in one: NumPy's numbers, the derivatives of the plain formula, what is kept."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.benchmarks import layers as benchmark
from tf_evonorm import functional
from tf_evonorm.functional import reductions
from tf_evonorm.layers import activations

X = np.random.default_rng(0).normal(0.3, 1.5, (3, 6, 4, 8))
GAMMA, BETA, EXTRA = (np.random.default_rng(seed).normal(0.8, 0.4, 8) for seed in (1, 2, 3))
ACTIVATIONS = {
    "relu": (tf.nn.relu, False),
    "silu": (tf.nn.silu, False),
    "swish_v": (activations.swish_v, True),
    "threshold": (activations.above_threshold, True),
}
OVER = {"batch": {}, "layer": {"groups": 1}, "group": {"groups": 4}, "mean square": {"groups": 8, "centred": False}}


@pytest.fixture
def as_if_large(monkeypatch):
    """Small tensors are summed as large ones are."""
    monkeypatch.setattr(reductions, "LARGE", 1)


def ours(over, name, x, gamma, beta, extra, **options):
    activation, learned = ACTIVATIONS[name]
    parameters = [extra] if learned else []
    if over == "batch":
        return functional.batch_norm_activated(x, gamma, beta, activation, parameters, **options)[0]
    return functional.group_norm_activated(x, gamma, beta, activation, parameters, **OVER[over], **options)


def plain(over, name, x, gamma, beta, extra, epsilon=1e-5):
    """The formula as the papers print it, channels last."""
    activation, learned = ACTIVATIONS[name]
    if over == "batch":
        mean = tf.reduce_mean(x, [0, 1, 2])
        variance = tf.reduce_mean(tf.square(x - mean), [0, 1, 2])
    else:
        groups = OVER[over]["groups"]
        split = tf.reshape(x, [*x.shape[:3], groups, 8 // groups])
        mean = tf.reduce_mean(split, [1, 2, 4], keepdims=True) * (over != "mean square")
        variance = tf.reduce_mean(tf.square(split - mean), [1, 2, 4], keepdims=True)
        mean, variance = (tf.reshape(tf.repeat(value, 8 // groups, 4), [-1, 1, 1, 8]) for value in (mean, variance))
    z = (x - mean) / tf.sqrt(variance + epsilon) * gamma + beta
    return activation(z, extra) if learned else activation(z)


def derivatives(function, arguments):
    """(y, first derivatives, derivatives of a function of the first)."""
    with tf.GradientTape() as outer:
        outer.watch(arguments)
        with tf.GradientTape() as inner:
            inner.watch(arguments)
            y = function(*arguments)
            loss = tf.reduce_sum(tf.reshape(tf.sin(tf.range(tf.size(y), dtype=y.dtype)), y.shape) * y**3)
        first = inner.gradient(loss, arguments, unconnected_gradients="zero")
        total = tf.add_n([tf.reduce_sum(tf.sin(value)) for value in first])
    return [y, *first, *outer.gradient(total, arguments, unconnected_gradients="zero")]


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_values_and_two_derivatives_are_those_of_the_formula(as_if_large, over, name, mode):
    arguments = [tf.constant(value) for value in (X, GAMMA, BETA, EXTRA)]

    def run(*values):
        return derivatives(lambda *inner: ours(over, name, *inner, compiled=False), values)

    got = (run if mode == "eager" else tf.function(run, autograph=False))(*arguments)
    want = derivatives(lambda *inner: plain(over, name, *inner), arguments)
    for value, other in zip(got, want):
        np.testing.assert_allclose(value, other, rtol=0, atol=1e-10 * max(1, np.abs(other).max()))


@pytest.mark.parametrize("over", OVER)
@pytest.mark.parametrize("axis", [-1, 1])
def test_compiled_loops_give_the_same(as_if_large, over, axis):
    x = tf.constant(X if axis == -1 else np.moveaxis(X, -1, 1))
    vectors = [tf.constant(value) for value in (GAMMA, BETA, EXTRA)]
    results = []
    for compiled in (True, False):
        with tf.GradientTape() as tape:
            tape.watch([x, *vectors])
            y = ours(over, "swish_v", x, *vectors, axis=axis, compiled=compiled)
        results.append([y, *tape.gradient(y, [x, *vectors], tf.sin(x))])
    y = results[0][0] if axis == -1 else np.moveaxis(results[0][0], 1, -1)
    np.testing.assert_allclose(y, plain(over, "swish_v", tf.constant(X), *vectors), atol=1e-12)
    for got, want in zip(*results):
        np.testing.assert_allclose(got, want, atol=1e-12 * max(1, np.abs(want).max()))


def test_moments_of_the_batch_are_returned_and_differentiable():
    x = tf.constant(X)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        _, mean, variance, count = functional.batch_norm_activated(x, GAMMA, BETA, tf.nn.relu)
        plain_mean, plain_variance = tf.reduce_mean(x, [0, 1, 2]), tf.math.reduce_variance(x, [0, 1, 2])
    np.testing.assert_allclose(mean, X.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(variance, X.var((0, 1, 2)), rtol=1e-12)
    assert count == X.size / 8
    for got, want in ((mean, plain_mean), (variance, plain_variance)):
        np.testing.assert_allclose(tape.gradient(got, x), tape.gradient(want, x), atol=1e-15)


def test_an_offset_far_from_zero_cancels_nothing():
    x = X.astype("float32") + np.float32(3000)
    y = functional.batch_norm_activated(tf.constant(x), tf.ones(8), tf.zeros(8), functional.linear)[0]
    wide = x.astype("float64")
    want = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y, want, atol=1e-3)


@pytest.mark.parametrize("layer", ["bn_relu", "gn_relu", "ln_relu", "frn"])
def test_the_input_alone_is_kept(as_if_large, layer):
    x = tf.ones([4, 16, 16, 32])
    assert (
        benchmark.kept_bytes(*benchmark._cases(layer, x.shape, "float32")[layer], x) < 1.2 * x.shape.num_elements() * 4
    )
