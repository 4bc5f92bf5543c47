"""What tasks share: optimizers with buffers and loss scale, the count of non-finite steps, one compiled step, rows of
all replicas."""

import types

import numpy as np
import pytest
import tensorflow as tf
from official.core import base_task

from tf_pixpro.train.task import (
    NonFiniteSteps,
    ObjectTask,
    built_optimizer,
    collected,
    compiled,
    gathered,
    update_metrics,
)


def test_optimizer_has_its_buffers_before_the_first_step():
    weight = tf.Variable([1.0, 2.0])
    optimizer = built_optimizer(tf.keras.optimizers.SGD(0.1, momentum=0.9), [weight])
    assert [tuple(v.shape) for v in optimizer.variables if "iteration" not in v.name and "rate" not in v.name] == [(2,)]
    assert not hasattr(optimizer, "get_scaled_loss")


@pytest.mark.parametrize("dtype, scales", [("float16", True), ("bfloat16", False), (None, False)])
def test_loss_scale_in_float16_only(dtype, scales):
    runtime = types.SimpleNamespace(mixed_precision_dtype=dtype, loss_scale=128)
    optimizer = built_optimizer(tf.keras.optimizers.SGD(0.1), [tf.Variable([1.0])], runtime)
    assert hasattr(optimizer, "get_scaled_loss") == scales
    if scales:
        assert float(optimizer.get_scaled_loss(tf.constant(2.0))) == 256


def test_counts_from_the_first_non_finite_step():
    metric = NonFiniteSteps()
    counts = []
    for values in ((1.0, 2.0), (1.0, np.inf), (1.0, 1.0), (np.nan, 1.0)):
        metric.update_state(*map(tf.constant, values))
        counts.append(float(metric.result()))
    assert counts == [0, 1, 2, 3]
    metric.reset_state()
    metric.update_state(tf.constant([1.0, np.nan]))  # any shape
    assert float(metric.result()) == 1


@pytest.mark.parametrize("scaled, count", [(False, 1), (True, 0)])
def test_overflow_of_a_gradient_is_allowed_under_loss_scale(scaled, count):
    optimizer = tf.keras.optimizers.SGD(0.1)
    optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer) if scaled else optimizer
    mean, steps = tf.keras.metrics.Mean("gradient_norm"), NonFiniteSteps()
    logs = {"loss": tf.constant(1.0), "gradient_norm": tf.constant(np.inf)}
    update_metrics([mean, steps], logs, ("loss", "gradient_norm"), optimizer)
    assert float(steps.result()) == count and np.isinf(mean.result())


def test_compiled_step():
    def step(x):
        return 2 * x

    assert compiled(step, False) is step
    assert float(compiled(step, True)(tf.constant(3.0))) == 6
    with (
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope(),
        pytest.raises(ValueError, match="jit_compile=True on 2"),
    ):
        compiled(step, True)


def test_rows_of_local_replicas_are_collected():
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    def step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return gathered({"label": tf.fill([2], replica)})

    outputs = tf.nest.map_structure(strategy.experimental_local_results, strategy.run(step))
    with strategy.scope():
        assert collected(outputs)["label"].tolist() == [0, 0, 1, 1]


class Task(ObjectTask, base_task.Task):
    def build_inputs(self, params, input_context=None):
        raise NotImplementedError


def test_optimizer_is_the_one_that_was_handed_in():
    task = Task(params=None)
    task._model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])
    made = tf.keras.optimizers.SGD(0.1, momentum=0.9)
    task._make_optimizer = lambda: made
    assert task.create_optimizer() is made and len(made.momentums) == 2
    assert [type(metric) for metric in task.build_metrics(training=True)] == [NonFiniteSteps]
    assert task.build_metrics(training=False) == []
