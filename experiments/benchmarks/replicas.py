"""The step of one of several replicas, traced where there are none: what crosses between them is named in its HLO.

TensorFlow's strategies for several chips cannot be traced without the chips. Under `OneOfReplicas`, layers, losses and
optimizers see as many replicas as asked for, and each sum over them becomes XLA's all-reduce.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops.gen_xla_ops import xla_all_reduce  # TensorFlow shows it nowhere else


def one_of(replicas: int) -> tf.distribute.Strategy:
    """A strategy under which a step is traced as that of one of so many replicas; it must not be run.

    Args:
      replicas: number of them, one a chip.
    """
    return tf.distribute.get_strategy() if replicas == 1 else OneOfReplicas(replicas)


class OneOfReplicas(tf.distribute.Strategy):
    """See `one_of`."""

    def __init__(self, replicas: int):
        made = type("Extended", (_Extended, type(tf.distribute.OneDeviceStrategy("/cpu:0").extended)), {})
        extended = made(self, "/cpu:0")
        extended.replicas = replicas
        super().__init__(extended)


class _Extended:
    """What differs from a strategy of one device."""

    replicas: int

    @property
    def _num_replicas_in_sync(self):
        return self.replicas

    def _use_merge_call(self):
        return False  # as on TPUs: replicas meet in all_reduce alone

    def _call_for_each_replica(self, fn, args, kwargs):
        with _Replica(self._container_strategy(), 0):
            return fn(*args, **kwargs)


class _Replica(tf.distribute.ReplicaContext):
    def all_reduce(self, reduce_op: tf.distribute.ReduceOp, value: Any, options: Any = None) -> Any:
        """The sum (or mean) of each tensor over the replicas, as an operation of XLA; differentiable."""
        replicas = self.num_replicas_in_sync
        mean = tf.distribute.ReduceOp(reduce_op) == tf.distribute.ReduceOp.MEAN
        return tf.nest.map_structure(lambda x: _sum(replicas)(x) / (replicas if mean else 1), value)


def _sum(replicas: int) -> Callable:
    def total(x):
        group = tf.constant([list(range(replicas))])
        return xla_all_reduce(tf.convert_to_tensor(x), group, reduce_op="Add", mode="CrossReplica")

    @tf.custom_gradient
    def summed(x):
        return total(x), total

    return summed
