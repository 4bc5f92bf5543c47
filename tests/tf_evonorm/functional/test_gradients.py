"""Gradients by hand: those of calculus, first and second, in every mode; and graphs that are freed, counted."""

import gc

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from tf_evonorm import BatchNormAct, EvoNormB0, EvoNormS0, FilterResponseNormAct, GroupNormAct
from tf_evonorm.functional import gradients


def cube(x):
    """(x**3, sum of x), with the gradient written out."""

    def function(x):
        return (x * x * x, tf.reduce_sum(x)), lambda dy, dsum: [3 * x * x * dy + dsum]

    return gradients.with_gradient(function, x)


def first_and_second(x):
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            loss = tf.reduce_sum(cube(x)[0])
        first = inner.gradient(loss, x)
    return first, outer.gradient(first, x)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_first_and_second_derivatives(mode):
    step = {
        "eager": first_and_second,
        "graph": tf.function(first_and_second),
        "xla": tf.function(first_and_second, jit_compile=True),
    }[mode]
    x = tf.constant([1.0, -2.0, 0.5], tf.float64)
    first, second = step(x)
    np.testing.assert_allclose(first, 3 * x**2, rtol=1e-14)
    np.testing.assert_allclose(second, 6 * x, rtol=1e-14)


def test_a_function_is_differentiated_from_outside_and_in_a_loop():
    x = tf.constant([1.0, -2.0, 0.5], tf.float64)

    @tf.function
    def twice(x):
        for _ in tf.range(2):
            x = cube(x)[0]
        return x, cube(x)[1]

    with tf.GradientTape() as tape:
        tape.watch(x)
        y, total = twice(x)
    np.testing.assert_allclose(tape.gradient([y, total], x), 18 * x**8, rtol=1e-13)


def test_a_saved_function_is_differentiated_after_loading(tmp_path):
    module = tf.Module()
    module.run = tf.function(lambda x: cube(x)[0], input_signature=[tf.TensorSpec([3])])
    tf.saved_model.save(module, str(tmp_path))
    x = tf.constant([1.0, -2.0, 0.5])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.saved_model.load(str(tmp_path)).run(x)
    np.testing.assert_allclose(tape.gradient(y, x), 3 * x**2, rtol=1e-6)


def alive():
    """(graphs of functions, registered gradients) that the process holds."""
    gc.collect()
    names = gradients.gradient_registry._registry
    return sum(isinstance(held, FuncGraph) for held in gc.get_objects()), len(names)


def trace_a_training_step(layer):
    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(layer(x, training=True), training=True) ** 2)
        return tape.gradient(loss, layer.trainable_variables)

    step(tf.ones([2, 4, 4, 8]))


@pytest.mark.parametrize("layer", [EvoNormB0, EvoNormS0, BatchNormAct, GroupNormAct, FilterResponseNormAct])
def test_traced_steps_are_freed(layer):
    options = {"groups": 4} if layer in (EvoNormS0, GroupNormAct) else {}
    counts = []
    for _ in range(4):
        trace_a_training_step(layer(**options))
        tf.keras.backend.clear_session()
        counts.append(alive())
    assert counts[1] == counts[3]
