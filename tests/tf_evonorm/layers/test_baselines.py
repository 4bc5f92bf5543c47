"""The baselines: one form for small and large inputs, with and without the fused kernel."""

import contract
import numpy as np
import pytest
import tensorflow as tf

import tf_evonorm
from tf_evonorm.functional import reductions

LAYERS = {
    "bn": (tf_evonorm.BatchNormAct, {}),
    "bn-silu": (tf_evonorm.BatchNormAct, {"activation": "silu", "momentum": 0.5}),
    "bn-affine": (tf_evonorm.BatchNormAct, {"apply_act": False}),
    "bn-softmax": (tf_evonorm.BatchNormAct, {"activation": "softmax"}),
    "gn": (tf_evonorm.GroupNormAct, {"groups": 4, "activation": "swish_v"}),
    "ln": (tf_evonorm.LayerNormAct, {}),
    "frn": (tf_evonorm.FilterResponseNormAct, {}),
}
X = np.random.default_rng(0).normal(0.3, 1.5, (4, 6, 4, 8)).astype("float32")


def trained(name, x, **more):
    """(y, gradients, moving statistics) of one step, traced."""
    kind, options = LAYERS[name]
    layer = kind(**options, **more)
    layer.build(x.shape)
    random = np.random.default_rng(1)
    for weight in layer.trainable_weights:
        weight.assign(random.uniform(0.5, 1.5, weight.shape))

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        weights = tf.sin(tf.range(tf.size(y), dtype=tf.float32))
        return [y, *tape.gradient(y, [x, *layer.trainable_weights], tf.cast(tf.reshape(weights, y.shape), y.dtype))]

    results = tf.function(step, autograph=False)(tf.constant(x))
    return [np.asarray(value, "float32") for value in (*results, *layer.non_trainable_weights)]


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-5), ("float64", 2e-5)])
@pytest.mark.parametrize("name", LAYERS)
def test_large_inputs_give_what_small_ones_give(name, dtype, tolerance, monkeypatch):
    small = trained(name, X.astype(dtype))
    monkeypatch.setattr(reductions, "LARGE", 1)
    for got, want in zip(trained(name, X.astype(dtype)), small):
        np.testing.assert_allclose(got, want, atol=tolerance * max(1, np.abs(want).max()))


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in contract.CASES
        if case.layer.__name__ in ("BatchNormAct", "GroupNormAct", "FilterResponseNormAct")
    ],
    ids=str,
)
def test_large_inputs_keep_the_contract(case, two_replicas, monkeypatch):
    monkeypatch.setattr(reductions, "LARGE", 1)
    contract.modes_agree(case)
    contract.replicas_agree(case, two_replicas)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_can_choose_for_itself_and_its_config_says_so(name):
    kind, options = LAYERS[name]
    results = {}
    for choice in (None, True, False):
        layer = kind.from_config(kind(jit_compile=choice, **options).get_config())
        assert layer.jit_compile is choice
        results[choice] = trained(name, X, jit_compile=choice)
    for choice in (True, False):
        for got, want in zip(results[choice], results[None]):
            np.testing.assert_allclose(got, want, atol=2e-5 * max(1, np.abs(want).max()))


def test_the_kernel_and_the_loops_stand_where_they_are_asked_for():
    large, small = tf.TensorSpec([8, 32, 32, 16]), tf.TensorSpec([2, 4, 4, 8])
    for devices in (["CPU"], ["CPU", "GPU"]):
        assert kernels(large, devices, jit_compile=False) == 1
        assert kernels(small, devices, jit_compile=True) == 0


def kernels(x, devices, **options):
    """Number of fused kernels in a trace of a training call for some devices."""
    layer = tf_evonorm.BatchNormAct(**options)
    layer.build(x.shape)
    with reductions.traced_for(*devices):
        graph = tf.function(lambda x: layer(x, training=True)).get_concrete_function(x).graph
    return sum("FusedBatchNorm" in operation.type for operation in graph.get_operations())


def test_processors_alone_go_without_the_fused_kernel_where_the_input_is_large():
    large, small = tf.TensorSpec([8, 32, 32, 16]), tf.TensorSpec([2, 4, 4, 8])
    assert kernels(large, ["CPU"]) == 0 and kernels(small, ["CPU"]) == 1
    assert kernels(large, ["CPU", "GPU"]) == kernels(large, ["TPU"]) == 1
