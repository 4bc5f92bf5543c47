"""PixPro as a task of Model Garden's train loop: steps, evaluation, and the encoder that a run leaves behind."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Callable

import numpy as np
import tensorflow as tf
from official.core import base_task, config_definitions

from tf_evonorm.mistakes import Mistake
from tf_pixpro.checkpoints import save_backbone
from tf_pixpro.pretext.model import PixPro
from tf_pixpro.pretext.probe import nearest_neighbour_accuracy, pooled_features
from tf_pixpro.train import loop
from tf_pixpro.train.actions import Pictures
from tf_pixpro.train.task import NonFiniteSteps, ObjectTask, collected, compiled, gathered, update_metrics

_LOGGED = ("positives", "without_positives", "projection_std", "momentum", "gradient_norm")


@dataclasses.dataclass(frozen=True)
class Probe:
    """Evaluation on labels: a simple classifier on the frozen encoder's features, averaged over a level's cells.

    Attributes:
      bank: input_context -> dataset of batches {'image': [b, H, W, 3] float32, 'label': [b] integer} to learn from;
        finite.
      queries: the same for the images to classify.
      accuracy: (bank features, bank labels, query features, query labels) -> a number; see `tf_pixpro.pretext.probe`.
      name: what the number is called in summaries.
    """

    bank: Callable
    queries: Callable
    accuracy: Callable = nearest_neighbour_accuracy
    name: str = "knn_accuracy"


class PixProTask(ObjectTask, base_task.Task):
    """PixPro as a Model Garden task made of objects instead of registered names.

    Args:
      model: () -> `PixPro`, called once inside the strategy's scope.
      optimizer: () -> `tf.keras` optimizer.
      views: (input_context, start_step) -> endless dataset of view batches of one replica, as if `start_step` batches
        had been read.
      evaluation: a `Probe`; or input_context -> finite dataset of view batches, on which the pretext loss is taken; or
        None.
      jit_compile: whether XLA compiles the whole step. One replica only; a TPU compiles anyway.
      logging_dir: folder of the checkpoints. The images resume at the step of the latest one.

    Raises:
      Mistake: from the first step, if jit_compile meets several replicas.
    """

    def __init__(
        self,
        model: Callable[[], PixPro],
        optimizer: Callable[[], tf.keras.optimizers.Optimizer],
        views: Callable[..., tf.data.Dataset],
        evaluation: Probe | Callable[..., tf.data.Dataset] | None = None,
        jit_compile: bool = False,
        logging_dir: str | None = None,
        name: str = "pixpro",
    ):
        super().__init__(params=None, logging_dir=logging_dir, name=name)
        self._make_model, self._make_optimizer, self._make_views = model, optimizer, views
        self.evaluation: Any = evaluation
        self.jit_compile = jit_compile

    def build_model(self) -> PixPro:
        self._model = self._make_model()
        return self._model

    def build_inputs(self, params: Any, input_context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
        if params.is_training:
            return self._make_views(input_context, loop.latest_step(self.logging_dir))
        if self.evaluation is None:
            raise Mistake("evaluation needs images. Received evaluation=None. Pass a Probe, or run with mode='train'.")
        if not isinstance(self.evaluation, Probe):
            return self.evaluation(input_context)
        parts = ((self.evaluation.bank, False), (self.evaluation.queries, True))
        bank, queries = (_marked(part(input_context), is_query) for part, is_query in parts)
        return bank.concatenate(queries).prefetch(tf.data.AUTOTUNE)

    def build_metrics(self, training: bool = True) -> list[tf.keras.metrics.Metric]:
        names = _LOGGED if training else _LOGGED[1:3]
        metrics = [tf.keras.metrics.Mean(name) for name in names] if training or not self._probes() else []
        return [*metrics, NonFiniteSteps()] if training else metrics

    def train_step(
        self,
        inputs: Mapping[str, tf.Tensor],
        model: PixPro,
        optimizer: tf.keras.optimizers.Optimizer,
        metrics: Sequence[tf.keras.metrics.Metric] | None = None,
    ) -> dict[str, tf.Tensor]:
        logs = compiled(model.learn, self.jit_compile)(inputs, optimizer)
        update_metrics(metrics, logs, ("loss", "gradient_norm"), optimizer)
        return {self.loss: logs["loss"]}

    def validation_step(
        self, inputs: Mapping[str, tf.Tensor], model: PixPro, metrics: Sequence[tf.keras.metrics.Metric] | None = None
    ) -> dict[str, tf.Tensor]:
        if not self._probes():
            logs = model.pretext_loss(inputs, training=False)
            update_metrics(metrics, logs)
            return {self.loss: logs["loss"]}
        features = pooled_features(model, inputs["image"])
        return gathered({"features": features, "label": inputs["label"], "query": inputs["query"]})

    def aggregate_logs(self, state: list | None = None, step_outputs: Any = None) -> list | None:
        if not self._probes():
            return None
        return [*(state or []), collected(step_outputs)]

    def reduce_aggregated_logs(
        self, aggregated_logs: list | None, global_step: tf.Variable | None = None
    ) -> dict[str, float]:
        if not aggregated_logs:
            return {}
        features, labels, query = (
            np.concatenate([part[name] for part in aggregated_logs]) for name in ("features", "label", "query")
        )
        query = query.astype(bool)
        accuracy = self.evaluation.accuracy(features[~query], labels[~query], features[query], labels[query])
        return {self.evaluation.name: accuracy}

    @property
    def best(self) -> tuple[str, str]:
        """Name of the number that ranks checkpoints, and which is better: 'higher' or 'lower'."""
        return (self.evaluation.name, "higher") if self._probes() else ("validation_loss", "lower")

    def _probes(self):
        return isinstance(self.evaluation, Probe)


def pretrain(
    task: PixProTask,
    config: config_definitions.ExperimentConfig,
    strategy: tf.distribute.Strategy,
    workdir: str,
    mode: str = "train_and_eval",
    pictures: Mapping[str, tf.Tensor] | None = None,
    progress: bool = True,
) -> tuple[PixPro, dict[str, float]]:
    """Runs a `PixProTask`, see `tf_pixpro.train.loop.run`, and keeps its encoder as `backbone` for Model Garden.

    Args:
      task: a `PixProTask` with logging_dir=workdir.
      config, strategy, workdir, mode, progress: see `tf_pixpro.train.loop.run`.
      pictures: a batch of views {'view1', ...} of a few images, of which pictures are kept at every evaluation or
        checkpoint.

    Returns:
      (the trained `PixPro`, results of the last evaluation as a dict, empty if there was none).

    Raises:
      Mistake, FloatingPointError: see `tf_pixpro.train.loop.run`.
    """

    def draw(trainer):
        folder = os.path.join(workdir, "pictures") if strategy.extended.should_checkpoint else None
        return [Pictures(trainer.model, pictures, folder, trainer.global_step, config.trainer.validation_interval)]

    def keep(model, folder):
        save_backbone(model.encoder, os.path.join(folder, "backbone"))

    actions = draw if pictures is not None else None
    return loop.run(task, config, strategy, workdir, mode, task.best, keep, actions, progress)


def _marked(dataset, is_query):
    """Keeps image and label, and marks each row as query or not."""

    def mark(batch):
        return {
            "image": batch["image"],
            "label": batch["label"],
            "query": tf.fill(tf.shape(batch["label"]), int(is_query)),  # workers do not exchange bools
        }

    return dataset.map(mark)
