"""The formulas: reference numbers of all 42 cases, properties of the paper, second derivatives."""

import json

import numpy as np
import pytest
import tensorflow as tf

from experiments.benchmarks.layers import plain
from tf_evonorm import functional
from tf_evonorm.functional import reductions

KINDS = ("b0", "b1", "b2", "s0", "s1", "s2")
ARCHIVE = "evonorm/evonorm_layers.npz"


@pytest.fixture
def as_if_large(monkeypatch):
    """Small tensors are summed as large ones are."""
    monkeypatch.setattr(reductions, "LARGE", 1)


def evonorm(kind, x, gamma, beta, v, groups=4, **options):
    if kind[0] == "b":
        return functional.evonorm_b(kind, x, gamma, beta, v, **options)[0]
    return functional.evonorm_s(kind, x, gamma, beta, v, groups=groups, **options)


def moved(value, axis):
    """NHWC numbers with the channels on that axis."""
    return value if axis == -1 else np.moveaxis(value, -1, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "dtype, axis, compiled, tolerance",
    [
        ("float64", -1, False, 1e-10),
        ("float64", 1, False, 1e-10),
        ("float32", -1, True, 1e-5),
        ("float32", 1, False, 1e-5),
    ],
)
def test_reference_numbers(as_if_large, golden, kind, dtype, axis, compiled, tolerance):
    archive = golden(ARCHIVE)
    cases = [case for case in json.loads(str(archive["meta"])) if case["layer"].lower().endswith(kind)]
    assert len(cases) == 7
    for case in cases if not compiled else cases[:1]:
        held = {name[3:]: archive[name] for name in archive.files if name.startswith(f"{case['case']:02d}_")}
        x, dy = (tf.constant(moved(held[name], axis).astype(dtype)) for name in ("x", "dy"))
        gamma, beta, v = (tf.constant(held[name].astype(dtype).ravel()) for name in ("gamma", "beta", "v"))
        options = {"axis": axis, "compiled": compiled}
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta, v])
            if kind[0] == "b":
                y, variance = functional.evonorm_b(kind, x, gamma, beta, v, **options)
            else:
                y = functional.evonorm_s(kind, x, gamma, beta, v, groups=case["groups"], **options)
        dx, dgamma, dbeta, dv = tape.gradient(y, [x, gamma, beta, v], dy)
        got = {"y_train": y, "dx": dx, "dgamma": dgamma, "dbeta": dbeta}
        if kind in ("b0", "s0"):
            got["dv"] = dv
        if kind[0] == "b":
            moving = tf.constant(held["moving_variance"].astype(dtype).ravel())
            got["y_infer"] = functional.evonorm_b(kind, x, gamma, beta, v, variance=moving, **options)[0]
            got["moving_variance_after"] = 0.9 * moving + 0.1 * variance
        for name, value in got.items():
            want = moved(held[name], axis) if name in ("y_train", "y_infer", "dx") else held[name].ravel()
            error = np.abs(np.asarray(value) - want).max()
            assert error <= tolerance * max(np.abs(want).max(), 1e-6), (case, name, error)


@pytest.mark.parametrize(
    "kind, mode",
    [(kind, mode) for kind in KINDS for mode in ("eager", "graph")]
    + [pytest.param(kind, "compiled", marks=pytest.mark.slow) for kind in KINDS],
)
def test_second_derivatives(as_if_large, kind, mode):
    """The gradient of a function of the gradient, against automatic differentiation of the plain formula."""
    random = np.random.default_rng(0)
    x, weights = (tf.constant(random.normal(1, 2, (3, 4, 2, 8))) for _ in range(2))
    gamma, beta, v = (tf.constant(random.normal(size=8)) for _ in range(3))

    def second(formula):
        def step(*point):
            with tf.GradientTape() as outer:
                outer.watch(point)
                with tf.GradientTape() as inner:
                    inner.watch(point)
                    loss = tf.reduce_sum(formula(*point) * weights)
                first = inner.gradient(loss, point, unconnected_gradients="zero")
                sizes = tf.add_n([tf.reduce_sum(tf.sin(value) * value) for value in first])
            return outer.gradient(sizes, point, unconnected_gradients="zero")

        return step

    want = second(lambda x, gamma, v: plain("EvoNorm" + kind.upper(), x, gamma, beta, v, groups=4))(x, gamma, v)
    ours = second(lambda x, gamma, v: evonorm(kind, x, gamma, beta, v, compiled=mode == "compiled"))
    got = (ours if mode == "eager" else tf.function(ours))(x, gamma, v)
    for one, other in zip(got, want):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * max(1, np.abs(other).max()))


def test_the_gradient_of_the_returned_variance():
    x = np.random.default_rng(0).normal(size=(3, 4, 2, 8))
    ones = tf.ones(8, tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        point = tf.constant(x)
        tape.watch(point)
        ours = functional.evonorm_b("b0", point, ones, ones, ones)[1]
        want = tf.math.reduce_variance(point, [0, 1, 2])
    weights = tf.range(8, dtype=tf.float64)
    np.testing.assert_allclose(tape.gradient(ours, point, weights), tape.gradient(want, point, weights), atol=1e-14)


def images(seed=0, shape=(3, 6, 5, 8)):
    return np.random.default_rng(seed).normal(0.5, 2, shape)


def bare(kind, x, epsilon=1e-30, **options):
    ones = tf.ones(x.shape[-1], tf.float64)
    return evonorm(kind, tf.constant(x), ones, tf.zeros_like(ones), ones, epsilon=epsilon, **options).numpy()


@pytest.mark.parametrize("kind", ["b0", "b2"])
def test_b0_and_b2_ignore_the_scale_of_the_input(kind):
    np.testing.assert_allclose(bare(kind, 7.3 * images()), bare(kind, images()), atol=1e-13)


def test_b1_does_not_ignore_it_but_does_so_for_large_inputs():
    x = images()
    assert np.abs(bare("b1", 10 * x) - bare("b1", x)).max() > 0.1
    np.testing.assert_allclose(bare("b1", 1e9 * x), bare("b1", 1e8 * x), atol=1e-6)


def test_b0_is_bounded_above_and_b2_below():
    x = images()
    x[0, 0, 0] = 1e6
    x[1, 0, 0] = -1e6
    assert bare("b0", x).max() <= 1
    assert bare("b2", x).min() >= -1


def test_s0_with_v_of_one_is_s1_and_s2_is_s1_without_mean():
    x = images()
    np.testing.assert_allclose(bare("s0", x), bare("s1", x), atol=1e-15)
    split = x.reshape(3, 6, 5, 4, 2)
    x = (split - split.mean((1, 2, 4), keepdims=True)).reshape(x.shape)
    np.testing.assert_allclose(bare("s2", x), bare("s1", x), atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_single_positions_are_finite(kind):
    x = tf.constant(images(shape=(4, 1, 1, 8)))
    ones = tf.ones(8, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = evonorm(kind, x, ones, ones, ones)
    assert np.isfinite(y).all() and np.isfinite(tape.gradient(y, x)).all()


@pytest.mark.parametrize("shape", [(6, 8), (3, 7, 8), (2, 3, 4, 2, 8)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_rank_is_that_of_the_same_positions_in_a_row(kind, shape):
    x = images(shape=shape)
    row = x.reshape(shape[0], -1, 1, 8)
    np.testing.assert_allclose(bare(kind, x, 1e-5), bare(kind, row, 1e-5).reshape(shape), atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_map_is_compiled_to_the_plain_formula(kind):
    random = np.random.default_rng(0)
    x, dy = (tf.constant(random.normal(1, 2, (3, 32, 28, 32))) for _ in range(2))
    assert reductions.worth_compiling(tf.reshape(x, [3, -1, 32]))
    assert not reductions.worth_compiling(tf.reshape(x[:, :4], [3, -1, 32]))
    parameters = [tf.constant(random.normal(size=32)) for _ in range(3)]

    def both(formula):
        with tf.GradientTape() as tape:
            tape.watch([x, *parameters])
            y = formula(x, *parameters)
        return [y, *tape.gradient(y, [x, *parameters], dy, unconnected_gradients="zero")]

    got = both(lambda *point: evonorm(kind, *point, compiled=True))
    want = both(lambda *point: plain("EvoNorm" + kind.upper(), *point, groups=4))
    for one, other in zip(got, want):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * np.abs(other).max())
