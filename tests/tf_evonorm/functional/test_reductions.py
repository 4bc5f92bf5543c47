"""Sums over positions against NumPy in float64; what is compiled, for which devices, and how much of it is kept."""

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm import functional
from tf_evonorm.functional import reductions


@pytest.fixture
def as_if_large(monkeypatch):
    """Small tensors are summed as large ones are."""
    monkeypatch.setattr(reductions, "LARGE", 1)


@pytest.mark.parametrize("positions", [2, 7, 37, 49, 96, 169, 250, 3136])
def test_sums_of_many_positions_are_those_of_numpy(as_if_large, positions):
    x, y = (np.random.default_rng(seed).normal(3, 2, (2, positions, 3)) for seed in range(2))
    mean, variance = reductions.mean_and_variance(False, (1,), tf.constant(x))
    np.testing.assert_allclose(mean, x.mean(1, keepdims=True), rtol=1e-13)
    np.testing.assert_allclose(variance, x.var(1, keepdims=True), rtol=1e-13)
    product, other = reductions.sums_over_positions(lambda x, y: (x * y, y), 1, tf.constant(x), tf.constant(y))
    np.testing.assert_allclose(product, (x * y).sum(1, keepdims=True), rtol=1e-13)
    np.testing.assert_allclose(other, y.sum(1, keepdims=True), rtol=1e-13)


@pytest.mark.parametrize("mean", [0, 3, 100])
def test_moments_of_bfloat16_on_a_tpu_are_those_of_one_reading(mean):
    x = tf.cast(np.random.default_rng(0).normal(mean, 1, (2, 3136, 3)), tf.bfloat16)
    kept = x.numpy().astype("float64")
    with functional.traced_for("TPU"):
        got = reductions.mean_and_variance(False, (1,), x)
        exact = reductions.mean_and_variance(False, (1,), tf.cast(x, tf.float32))[1]
    np.testing.assert_allclose(got[0], kept.mean(1, keepdims=True), rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(got[1], kept.var(1, keepdims=True), rtol=1e-5, atol=3e-5 * mean**2)
    np.testing.assert_allclose(exact, kept.var(1, keepdims=True), rtol=1e-4)


def large_map(size=64):
    return tf.ones([2, size, size, 16])


def test_the_choice_of_loops_follows_the_devices_that_run_them():
    x = tf.ones([2, 4096, 16])
    assert reductions.worth_compiling(x) and not reductions.worth_compiling(x[:, :16])
    with functional.traced_for("TPU"):
        assert not reductions.worth_compiling(x)
        with functional.traced_for("CPU"):
            assert reductions.worth_compiling(x)
    assert reductions.worth_compiling(x)


def inner_functions(devices, **options):
    """Names of the XLA functions inside a trace of EvoNorm-S1's forward pass, for some devices."""

    @tf.function
    def forward(x):
        return functional.evonorm_s("s1", x, tf.ones(16), tf.zeros(16), groups=4, **options)

    with functional.traced_for(*devices):
        graph = forward.get_concrete_function(tf.TensorSpec([2, 64, 64, 16])).graph
    return [op.name for op in graph.get_operations() if "PartitionedCall" in op.type]


def test_processors_and_gpus_get_inner_xla_functions_and_tpus_none():
    assert inner_functions(["CPU"]) and inner_functions(["CPU", "GPU"]) and not inner_functions(["CPU", "TPU"])


def test_a_choice_of_the_caller_stands_on_every_device():
    assert not inner_functions(["CPU", "GPU"], compiled=False) and inner_functions(["TPU"], compiled=True)


def test_trees_of_sums_are_for_processors_alone():
    x = tf.ones([2, 4096, 16])

    def additions(*devices):
        with functional.traced_for(*devices):
            graph = tf.function(lambda x: reductions.mean_and_variance(False, (1,), x)).get_concrete_function(x).graph
        return sum(operation.type == "AddN" for operation in graph.get_operations())

    assert additions("CPU") and not additions("CPU", "GPU") and not additions("TPU")


def compiled(monkeypatch, sizes, calls=1):
    """Number of loops that eager calls have compiled."""
    monkeypatch.setattr(reductions, "eager_shapes", reductions._EagerShapes())
    reductions._compiled.cache_clear()
    for size in sizes:
        for _ in range(calls):
            functional.evonorm_s("s1", large_map(size), tf.ones(16), tf.zeros(16), groups=4)
    return reductions._compiled.cache_info().currsize


def test_eager_calls_compile_shapes_that_come_back_and_not_too_many(monkeypatch):
    assert compiled(monkeypatch, range(48, 88)) == 0
    assert compiled(monkeypatch, [48], calls=reductions.EAGER_CALLS) == 2  # moments and result
    monkeypatch.setattr(reductions, "EAGER_SHAPES", 2)
    assert compiled(monkeypatch, [48, 49, 50, 51], calls=reductions.EAGER_CALLS) == 4


def test_eager_numbers_stay_when_a_shape_is_compiled(monkeypatch):
    monkeypatch.setattr(reductions, "eager_shapes", reductions._EagerShapes())
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 64, 64, 16)))
    ones = tf.ones(16, tf.float64)
    results = [functional.evonorm_b("b0", x, ones, ones, ones)[0] for _ in range(reductions.EAGER_CALLS + 1)]
    assert reductions.eager_shapes.compiled
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], atol=1e-12)
