"""The formulas: reference numbers of all 42 cases, properties of the paper, second derivatives, moments without cancellation."""

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


def pictures(seed=0, shape=(3, 6, 5, 8)):
    return np.random.default_rng(seed).normal(0.5, 2, shape)


def bare(kind, x, epsilon=1e-30, **options):
    ones = tf.ones(x.shape[-1], tf.float64)
    return evonorm(kind, tf.constant(x), ones, tf.zeros_like(ones), ones, epsilon=epsilon, **options).numpy()


@pytest.mark.parametrize("kind", ["b0", "b2"])
def test_b0_and_b2_ignore_the_scale_of_the_input(kind):
    np.testing.assert_allclose(bare(kind, 7.3 * pictures()), bare(kind, pictures()), atol=1e-13)


def test_b1_does_not_ignore_it_but_does_so_for_large_inputs():
    x = pictures()
    assert np.abs(bare("b1", 10 * x) - bare("b1", x)).max() > 0.1
    np.testing.assert_allclose(bare("b1", 1e9 * x), bare("b1", 1e8 * x), atol=1e-6)


def test_b0_is_bounded_above_and_b2_below():
    x = pictures()
    x[0, 0, 0] = 1e6
    x[1, 0, 0] = -1e6
    assert bare("b0", x).max() <= 1
    assert bare("b2", x).min() >= -1


def test_s0_with_v_of_one_is_s1_and_s2_is_s1_without_mean():
    x = pictures()
    np.testing.assert_allclose(bare("s0", x), bare("s1", x), atol=1e-15)
    split = x.reshape(3, 6, 5, 4, 2)
    x = (split - split.mean((1, 2, 4), keepdims=True)).reshape(x.shape)
    np.testing.assert_allclose(bare("s2", x), bare("s1", x), atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_single_places_are_finite(kind):
    x = tf.constant(pictures(shape=(4, 1, 1, 8)))
    ones = tf.ones(8, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = evonorm(kind, x, ones, ones, ones)
    assert np.isfinite(y).all() and np.isfinite(tape.gradient(y, x)).all()


@pytest.mark.parametrize("shape", [(6, 8), (3, 7, 8), (2, 3, 4, 2, 8)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_rank_is_that_of_the_same_places_in_a_row(kind, shape):
    x = pictures(shape=shape)
    row = x.reshape(shape[0], -1, 1, 8)
    np.testing.assert_allclose(bare(kind, x, 1e-5), bare(kind, row, 1e-5).reshape(shape), atol=1e-14)


@pytest.mark.parametrize("over, axes", [("batch", (0, 1, 2)), ("instance", (1, 2)), ("layer", (1, 2, 3))])
def test_moments_are_those_of_numpy(over, axes):
    x = pictures()
    mean, variance = functional.moments(tf.constant(x), over)
    np.testing.assert_allclose(mean - x.mean(axes, keepdims=True), 0, atol=1e-14)
    np.testing.assert_allclose(variance - x.var(axes, keepdims=True), 0, atol=1e-14)
    moved_mean, _ = functional.moments(tf.constant(np.moveaxis(x, -1, 1)), over, axis=1)
    np.testing.assert_allclose(moved_mean, np.moveaxis(np.asarray(mean), -1, 1), atol=1e-14)


def test_group_moments_are_those_of_numpy():
    x = pictures()
    split = x.reshape(3, 6, 5, 2, 4)
    mean, variance = functional.moments(tf.constant(x), "group", groups=2)
    np.testing.assert_allclose(mean, np.repeat(split.mean((1, 2, 4)), 4, 1).reshape(3, 1, 1, 8), atol=1e-14)
    np.testing.assert_allclose(variance, np.repeat(split.var((1, 2, 4)), 4, 1).reshape(3, 1, 1, 8), atol=1e-14)


@pytest.mark.parametrize("places", [2, 7, 37, 49, 96, 169, 250, 3136])
def test_sums_of_many_places_are_those_of_numpy(as_if_large, places):
    x, y = (np.random.default_rng(seed).normal(3, 2, (2, places, 3)) for seed in range(2))
    mean, variance = reductions.mean_and_variance(False, (1,), tf.constant(x))
    np.testing.assert_allclose(mean, x.mean(1, keepdims=True), rtol=1e-13)
    np.testing.assert_allclose(variance, x.var(1, keepdims=True), rtol=1e-13)
    product, other = reductions.sums_over_places(lambda x, y: (x * y, y), 1, tf.constant(x), tf.constant(y))
    np.testing.assert_allclose(product, (x * y).sum(1, keepdims=True), rtol=1e-13)
    np.testing.assert_allclose(other, y.sum(1, keepdims=True), rtol=1e-13)


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

    got = both(lambda *point: evonorm(kind, *point))
    want = both(lambda *point: plain("EvoNorm" + kind.upper(), *point, groups=4))
    for one, other in zip(got, want):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * np.abs(other).max())


@pytest.mark.parametrize("over", functional.OVER)
def test_the_gradient_of_moments(as_if_large, over):
    x = tf.constant(pictures()[:2, :3, :2, :4])
    theory, numeric = tf.test.compute_gradient(
        lambda x: tf.concat([tf.reshape(m, [-1]) for m in functional.moments(x, over, groups=2)], 0), [x]
    )
    np.testing.assert_allclose(theory[0], numeric[0], atol=1e-7)


@pytest.mark.parametrize("large", [1, 2**30])
def test_a_large_mean_does_not_cancel_the_variance(monkeypatch, large):
    """Float32 has steps of 1e-3 at 10000; the mean square minus the squared mean would be wrong by steps of 8."""
    monkeypatch.setattr(reductions, "LARGE", large)
    x = np.float32(10000 + np.random.default_rng(0).normal(size=(4, 16, 16, 8)))
    for over, axes in (("batch", (0, 1, 2)), ("instance", (1, 2)), ("layer", (1, 2, 3))):
        variance = functional.moments(tf.constant(x), over)[1]
        np.testing.assert_allclose(variance / x.astype("float64").var(axes, keepdims=True), 1, rtol=1e-3)


@pytest.mark.parametrize(
    "channels, groups",
    [(8, 8), (40, 20), (48, 24), (56, 28), (80, 20), (96, 32), (112, 28), (144, 24), (160, 32), (240, 30), (37, 1)],
)
def test_auto_groups_follow_the_authors_rule(channels, groups):
    assert functional.fitting_groups("auto", channels) == groups


@pytest.mark.parametrize("groups", [0, -1, 32, 2.0, "all"])
def test_groups_that_do_not_divide_are_refused(groups):
    with pytest.raises(
        ValueError, match=r"groups must divide the channels\. Received .*channels=48\. Pass one of 1, 2, 3, 4"
    ):
        functional.fitting_groups(groups, 48)


def test_an_unknown_index_set_is_refused():
    with pytest.raises(ValueError, match="over must be one of"):
        functional.moments(tf.zeros([2, 3]), "channels")
