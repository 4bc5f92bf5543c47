"""Moments of the four index sets against NumPy in float64, without cancellation; empty batches; numbers of groups."""

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm import functional
from tf_evonorm.functional import reductions


@pytest.fixture
def as_if_large(monkeypatch):
    """Small tensors are summed as large ones are."""
    monkeypatch.setattr(reductions, "LARGE", 1)


def images(seed=0, shape=(3, 6, 5, 8)):
    return np.random.default_rng(seed).normal(0.5, 2, shape)


@pytest.mark.parametrize("over, axes", [("batch", (0, 1, 2)), ("instance", (1, 2)), ("layer", (1, 2, 3))])
def test_moments_are_those_of_numpy(over, axes):
    x = images()
    mean, variance = functional.moments(tf.constant(x), over)
    np.testing.assert_allclose(mean - x.mean(axes, keepdims=True), 0, atol=1e-14)
    np.testing.assert_allclose(variance - x.var(axes, keepdims=True), 0, atol=1e-14)
    moved_mean, _ = functional.moments(tf.constant(np.moveaxis(x, -1, 1)), over, axis=1)
    np.testing.assert_allclose(moved_mean, np.moveaxis(np.asarray(mean), -1, 1), atol=1e-14)


def test_group_moments_are_those_of_numpy():
    x = images()
    split = x.reshape(3, 6, 5, 2, 4)
    mean, variance = functional.moments(tf.constant(x), "group", groups=2)
    np.testing.assert_allclose(mean, np.repeat(split.mean((1, 2, 4)), 4, 1).reshape(3, 1, 1, 8), atol=1e-14)
    np.testing.assert_allclose(variance, np.repeat(split.var((1, 2, 4)), 4, 1).reshape(3, 1, 1, 8), atol=1e-14)


@pytest.mark.parametrize("over", functional.OVER)
def test_the_gradient_of_moments(as_if_large, over):
    x = tf.constant(images()[:2, :3, :2, :4])
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


@pytest.mark.parametrize("groups", [np.int32(4), np.int64(4)])
def test_numpy_integers_are_groups(groups):
    fitting = functional.fitting_groups(groups, 8)
    assert fitting == 4 and type(fitting) is int


@pytest.mark.parametrize("shape", [(0, 3, 2, 8), (1, 1, 1, 8)])
def test_a_batch_of_no_or_one_value_has_finite_moments(shape):
    x = tf.ones(shape, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        mean, variance, values = functional.batch_moments(x)
    assert values == shape[0]
    np.testing.assert_array_equal(mean, np.full([1, 1, 1, 8], shape[0]))
    np.testing.assert_array_equal(variance, np.zeros([1, 1, 1, 8]))
    np.testing.assert_array_equal(tape.gradient([mean, variance], x), np.ones(shape))
