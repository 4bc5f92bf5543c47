"""What every task shares: a built optimizer, the stop at non-finite values, one compiled step, gathered values.

A task of this project is made of objects: its model, optimizer and data are callables that are handed in. To write one:

1. derive from `ObjectTask` and a task of Model Garden's (`base_task.Task`, or one with losses and metrics of its own),
set
   `_make_optimizer`, and let `build_model` keep the model as `_model`;
2. in `train_step` call `compiled(step, jit_compile)`, then `update_metrics`; a task that inherits Model Garden's step
needs neither; 3. in `validation_step` return `gathered(values)`, and read them in `aggregate_logs` with
`collected(step_outputs)`.

A task with several optimizers makes each with `built_optimizer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

import numpy as np
import tensorflow as tf
from official.modeling import performance

from tf_evonorm.mistakes import Mistake


class NonFiniteSteps(tf.keras.metrics.Metric):
    """Number of steps since the first one whose loss or gradient was not finite on any replica, that one included.

    `tf_pixpro.train.actions.StopAtNonFinite` reads it after each inner loop and names the step.
    """

    def __init__(self, name: str = "nonfinite_steps", dtype: str | None = None):
        super().__init__(name=name, dtype=dtype)
        # All replicas count the same.
        self.steps = self.add_weight(name="steps", initializer="zeros", aggregation=tf.VariableAggregation.MEAN)

    def update_state(self, *values: tf.Tensor) -> tf.Tensor:
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(tf.cast(value, tf.float32))) for value in values])
        bad = tf.cast(~finite, tf.float32)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            bad = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, bad)
        return self.steps.assign_add(tf.cast((bad > 0) | (self.steps > 0), tf.float32))

    def result(self) -> tf.Tensor:
        return tf.identity(self.steps)


class ObjectTask:
    """The part of a task that is the same for all; derive from it first, then from a task of Model Garden's.

    Attributes that the deriving class sets:
      _make_optimizer: () -> Keras optimizer, called inside the strategy's scope; None leaves the optimizer to Model
        Garden, which makes it from the trainer's `optimizer_config`.
      _model: what `build_model` returned.
    """

    _make_optimizer: Callable[[], tf.keras.optimizers.Optimizer] | None = None
    _model: tf.keras.Model

    def create_optimizer(
        self, optimizer_config: Any = None, runtime_config: Any = None, dp_config: Any = None
    ) -> tf.keras.optimizers.Optimizer:
        """The optimizer of the model's trainable weights, see `built_optimizer`."""
        if self._make_optimizer is None:
            return super().create_optimizer(optimizer_config, runtime_config, dp_config)  # type: ignore[misc]
        return built_optimizer(self._make_optimizer(), self._model.trainable_weights, runtime_config)

    def initialize(self, model: tf.keras.Model) -> None:
        """Loads nothing: a run starts from its own weights."""

    def build_metrics(self, training: bool = True) -> list[tf.keras.metrics.Metric]:
        """Model Garden's metrics of the task, in training with `NonFiniteSteps`."""
        metrics = super().build_metrics(training=training)  # type: ignore[misc]
        return [*metrics, NonFiniteSteps()] if training else metrics

    def train_step(
        self,
        inputs: Any,
        model: tf.keras.Model,
        optimizer: tf.keras.optimizers.Optimizer,
        metrics: Sequence[tf.keras.metrics.Metric] | None = None,
    ) -> dict[str, tf.Tensor]:
        """Model Garden's step; its loss also updates `NonFiniteSteps`."""
        watched = [metric for metric in metrics or () if isinstance(metric, NonFiniteSteps)]
        others = [metric for metric in metrics or () if metric not in watched]
        loss = super().train_step(inputs, model, optimizer, others)[self.loss]  # type: ignore[misc,attr-defined]
        for metric in watched:
            metric.update_state(loss)
        return {self.loss: loss}  # type: ignore[attr-defined]


def built_optimizer(
    optimizer: tf.keras.optimizers.Optimizer, weights: Sequence[tf.Variable], runtime_config: Any = None
) -> tf.keras.optimizers.Optimizer:
    """An optimizer with its buffers made, so that a checkpoint restores them; in float16 with loss scaling.

    Args:
      optimizer: of `tf.keras`.
      weights: the trainable variables that it will update.
      runtime_config: Model Garden's `RuntimeConfig`, of which mixed_precision_dtype and loss_scale are read; None for
        float32.
    """
    if runtime_config is not None and runtime_config.mixed_precision_dtype == "float16":
        optimizer = performance.configure_optimizer(optimizer, True, runtime_config.loss_scale)
    optimizer.build(weights)
    return optimizer


def compiled(step: Callable, jit_compile: bool) -> Callable:
    """A step as it is, or compiled by XLA as a whole.

    Raises:
      Mistake: if jit_compile is set on several replicas.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if jit_compile and replicas > 1:
        raise Mistake(
            f"XLA compiles the step of one replica. Received jit_compile=True on {replicas} replicas. Turn "
            "one of them off."
        )
    return tf.function(step, jit_compile=True) if jit_compile else step


def update_metrics(
    metrics: Iterable[tf.keras.metrics.Metric] | None,
    logs: Mapping[str, tf.Tensor],
    watched: Sequence[str] = ("loss",),
    optimizer: tf.keras.optimizers.Optimizer | None = None,
) -> None:
    """Updates each metric with the value of its name, and `NonFiniteSteps` with the watched ones.

    Args:
      metrics: of one step; None for none.
      logs: scalars of one step.
      watched: names in `logs` that must stay finite.
      optimizer: of the step. Where it scales the loss, a gradient may overflow: the step is skipped and the scale
        halved. Names that end in 'gradient_norm' are then not watched.
    """
    scaled = hasattr(optimizer, "get_scaled_loss")
    finite = [logs[name] for name in watched if not (scaled and name.endswith("gradient_norm"))]
    for metric in metrics or ():
        if isinstance(metric, NonFiniteSteps):
            metric.update_state(*finite)
        else:
            metric.update_state(logs[metric.name])


def gathered(values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What a validation step returns so that `collected` finds the rows of every replica; called by each replica.

    Under `MultiWorkerMirroredStrategy`, the only one whose other replicas this process does not see, tensors are
    concatenated over all
    replicas along their first axis. They must be numbers: workers do not exchange booleans.
    """
    if not isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
        return values
    # Identity places tensors that come from the data iterator; all_gather needs their device.
    values = tf.nest.map_structure(tf.identity, values)
    return tf.distribute.get_replica_context().all_gather(values, axis=0)


def collected(step_outputs: Mapping[str, Sequence[tf.Tensor]]) -> dict[str, np.ndarray]:
    """The rows of all replicas, from the outputs of a validation step that returned `gathered(...)`.

    Args:
      step_outputs: name -> one tensor per local replica, as Model Garden hands them to `aggregate_logs`.

    Returns:
      Name -> array, concatenated along the first axis.
    """
    # Gathered rows are the same on every local replica.
    replicas = 1 if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy) else None
    return {name: np.concatenate([v.numpy() for v in values[:replicas]]) for name, values in step_outputs.items()}
