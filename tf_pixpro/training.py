"""The task that Model Garden's train loop runs: pretext steps, resume, evaluation, and what a run leaves behind."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from typing import Callable, Optional

import numpy as np
import tensorflow as tf
from official.core import base_task, config_definitions, train_lib, train_utils
from official.modeling import performance

from tf_pixpro.actions import Pictures, Progress, StopAtNonFinite
from tf_pixpro.checkpoints import save_backbone
from tf_pixpro.model import PixPro
from tf_pixpro.probe import nearest_neighbour_accuracy

_LOGGED = ("positives", "without_positives", "projection_std", "momentum", "gradient_norm")


@dataclasses.dataclass(frozen=True)
class Probe:
    """Evaluation on labels: features of the frozen encoder, averaged over the level's cells, and a simple classifier on them.

    Attributes:
      bank: input_context -> dataset of batches {'image': [b, H, W, 3] float32, 'label': [b] integer} to learn from; finite.
      queries: the same for the images to classify.
      accuracy: (bank features, bank labels, query features, query labels) -> a number; see `tf_pixpro.probe`.
      name: what the number is called in summaries.
    """

    bank: Callable
    queries: Callable
    accuracy: Callable = nearest_neighbour_accuracy
    name: str = "knn_accuracy"


class PixProTask(base_task.Task):
    """PixPro as a Model Garden task made of objects instead of registered names.

    Args:
      model: () -> `PixPro`, called once inside the strategy's scope.
      optimizer: () -> `tf.keras` optimizer.
      views: (input_context, start_step) -> endless dataset of view batches of one replica, as if `start_step` batches were gone.
      evaluation: a `Probe`; or input_context -> finite dataset of view batches, on which the pretext loss is taken; or None.
      jit_compile: whether XLA compiles the whole step. One replica only; a TPU compiles anyway.
      logging_dir: folder of the checkpoints. Its latest one tells at which step the images go on.

    Raises:
      ValueError: from the first step, if jit_compile meets several replicas.
    """

    def __init__(self, model, optimizer, views, evaluation=None, jit_compile=False, logging_dir=None, name="pixpro"):
        super().__init__(params=None, logging_dir=logging_dir, name=name)
        self._make_model, self._make_optimizer, self._make_views = model, optimizer, views
        self.evaluation, self.jit_compile = evaluation, jit_compile

    def build_model(self) -> PixPro:
        self._model = self._make_model()
        return self._model

    def create_optimizer(self, optimizer_config=None, runtime_config=None, dp_config=None):
        """The optimizer with its buffers already made, so that a checkpoint finds them."""
        optimizer = self._make_optimizer()
        if runtime_config is not None and runtime_config.mixed_precision_dtype == "float16":
            optimizer = performance.configure_optimizer(optimizer, True, runtime_config.loss_scale)
        optimizer.build(self._model.trainable_weights)
        return optimizer

    def initialize(self, model):
        """Nothing to load: a run starts from its own weights."""

    def build_inputs(self, params, input_context=None):
        if params.is_training:
            return self._make_views(input_context, latest_step(self.logging_dir))
        if self.evaluation is None:
            raise ValueError(
                "evaluation needs images. Received evaluation=None. Pass a Probe, or run with mode='train'."
            )
        if not isinstance(self.evaluation, Probe):
            return self.evaluation(input_context)
        parts = ((self.evaluation.bank, False), (self.evaluation.queries, True))
        bank, queries = (_marked(part(input_context), is_query) for part, is_query in parts)
        return bank.concatenate(queries).prefetch(tf.data.AUTOTUNE)

    def build_metrics(self, training=True):
        names = _LOGGED if training else _LOGGED[1:3]
        metrics = [tf.keras.metrics.Mean(name) for name in names] if training or not self._probes() else []
        return [*metrics, NonFiniteSteps()] if training else metrics

    def train_step(self, inputs, model, optimizer, metrics=None):
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if self.jit_compile and replicas > 1:
            raise ValueError(
                f"XLA compiles the step of one replica. Received jit_compile=True on {replicas} replicas. Turn one of them off."
            )
        learn = tf.function(model.learn, jit_compile=True) if self.jit_compile else model.learn
        logs = learn(inputs, optimizer)
        scaled = hasattr(
            optimizer, "get_scaled_loss"
        )  # then a gradient may overflow: the step is skipped, the scale halved
        for metric in metrics or ():
            if isinstance(metric, NonFiniteSteps):
                metric.update_state(logs["loss"], 0.0 if scaled else logs["gradient_norm"])
            else:
                metric.update_state(logs[metric.name])
        return {self.loss: logs["loss"]}

    def validation_step(self, inputs, model, metrics=None):
        if not self._probes():
            logs = model.pretext_loss(inputs, training=False)
            for metric in metrics or ():
                metric.update_state(logs[metric.name])
            return {self.loss: logs["loss"]}
        level = model.encoder(inputs["image"], training=False)[model.level]
        features = tf.reduce_mean(tf.cast(level, tf.float32), axis=[1, 2])
        logs = {"features": features, "label": inputs["label"], "query": inputs["query"]}
        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            # The only strategy whose other replicas this process does not see.
            # Identity places what comes from the images' iterator, which the gathering wants to know.
            logs = tf.distribute.get_replica_context().all_gather(tf.nest.map_structure(tf.identity, logs), axis=0)
        return logs

    def aggregate_logs(self, state=None, step_outputs=None):
        if not self._probes():
            return None
        replicas = 1 if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy) else None
        whole = {name: np.concatenate([v.numpy() for v in values[:replicas]]) for name, values in step_outputs.items()}
        return [*(state or []), whole]

    def reduce_aggregated_logs(self, aggregated_logs, global_step=None):
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


class NonFiniteSteps(tf.keras.metrics.Metric):
    """How many steps lie behind the first one whose loss or gradient was not finite on any replica, itself included."""

    def __init__(self, name="nonfinite_steps", **kwargs):
        super().__init__(name=name, **kwargs)
        # All replicas count the same.
        self.steps = self.add_weight(name="steps", initializer="zeros", aggregation=tf.VariableAggregation.MEAN)

    def update_state(self, *values):
        finite = tf.reduce_all([tf.math.is_finite(tf.cast(value, tf.float32)) for value in values])
        bad = tf.cast(~finite, tf.float32)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            bad = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, bad)
        return self.steps.assign_add(tf.cast((bad > 0) | (self.steps > 0), tf.float32))

    def result(self):
        return tf.identity(self.steps)


def latest_step(folder: Optional[str]) -> int:
    """Global step of the latest checkpoint in a folder; 0 without one."""
    path = tf.train.latest_checkpoint(folder) if folder else None
    return int(train_utils.read_global_step_from_checkpoint(path)) if path else 0


def experiment_config(steps: int, global_batch: int, trainer=None, runtime=None) -> config_definitions.ExperimentConfig:
    """Model Garden's configuration of a run.

    Args:
      steps: optimizer steps of the whole run.
      global_batch: images per step, over all replicas.
      trainer: keyword arguments of Model Garden's `TrainerConfig`, such as steps_per_loop or checkpoint_interval.
      runtime: keyword arguments of its `RuntimeConfig`, such as mixed_precision_dtype.

    Raises:
      TypeError: if Model Garden knows no such argument.
    """
    trainer = {"train_steps": steps, "best_checkpoint_export_subdir": "best", **(trainer or {})}
    trainer.setdefault("summary_interval", trainer.get("steps_per_loop", 1000))
    data = {"global_batch_size": global_batch}
    return config_definitions.ExperimentConfig(
        task=config_definitions.TaskConfig(
            train_data=config_definitions.DataConfig(is_training=True, **data),
            validation_data=config_definitions.DataConfig(is_training=False, **data),
        ),
        trainer=config_definitions.TrainerConfig(**trainer),
        runtime=config_definitions.RuntimeConfig(**(runtime or {})),
    )


def pretrain(task, config, strategy, workdir, mode="train_and_eval", pictures=None, progress=True):
    """Trains, evaluates, or both, with Model Garden's loop; starting again in the same folder goes on where the run was.

    Args:
      task: a `PixProTask` with logging_dir=workdir.
      config: from `experiment_config`.
      strategy: a `tf.distribute.Strategy`.
      workdir: gets the checkpoints, `best/` (the best one by `task.best`, with its `backbone`), `backbone` (what Model Garden reads),
        and summaries in `train/`, `validation/` and `pictures/`.
      mode: 'train', 'eval' or 'train_and_eval'. The last also evaluates before the first step.
      pictures: a batch of views {'view1', ...} of a few images, of which pictures are kept at every evaluation or checkpoint.
      progress: whether to draw a progress bar on stderr.

    Returns:
      (the trained `PixPro`, results of the last evaluation as a dict, empty if there was none).

    Raises:
      ValueError: if mode is unknown, or 'eval' finds no checkpoint.
      FloatingPointError: at the end of the inner loop in which a loss became non-finite; nothing is saved after that step.
    """
    if mode not in ("train", "eval", "train_and_eval"):
        raise ValueError(f"mode must be train, eval or train_and_eval. Received mode={mode!r}.")
    if mode == "eval" and not tf.train.latest_checkpoint(workdir):
        raise ValueError(f"mode='eval' needs a checkpoint. Received workdir={workdir!r} without one. Train first.")
    chief = strategy.extended.should_checkpoint
    name, comparison = task.best
    config = config.replace(
        trainer=config.trainer.replace(best_checkpoint_eval_metric=name, best_checkpoint_metric_comp=comparison)
    )
    kept = workdir if chief else _follower_folder(workdir, config.trainer.best_checkpoint_export_subdir)
    best = None
    if mode == "train_and_eval":
        best = _BestBackbone(os.path.join(kept, config.trainer.best_checkpoint_export_subdir), name, comparison)
    with strategy.scope():
        trainer = train_utils.create_trainer(
            config,
            task,
            train="train" in mode,
            evaluate="eval" in mode,
            checkpoint_exporter=best,
        )
    bar = Progress(
        trainer.global_step, config.trainer.train_steps, config.task.train_data.global_batch_size, progress and chief
    )
    results = {}
    after_train = [StopAtNonFinite(trainer.global_step, workdir), bar]
    after_eval = [results.update, bar.restart]
    if pictures is not None:
        folder = os.path.join(workdir, "pictures") if chief else None
        draw = Pictures(trainer.model, pictures, folder, trainer.global_step, config.trainer.validation_interval)
        after_train += [draw, bar.restart]
    runner = _Runner(
        strategy,
        task,
        mode,
        config,
        workdir,
        trainer=trainer,
        save_summary=chief,
        train_actions=after_train,
        eval_actions=after_eval,
    )
    with bar:
        if mode == "train_and_eval" and trainer.global_step.numpy() == 0:
            with strategy.scope():
                runner.controller.evaluate(steps=config.trainer.validation_steps)
        runner.run()
    if "train" in mode:
        save_backbone(trainer.model.encoder, os.path.join(kept, "backbone"))
    return trainer.model, {name: float(value) for name, value in results.items()}


def _follower_folder(workdir, best):
    """A folder for a worker that is not the chief: it takes part in saving, and must think the same checkpoint the best so far."""
    folder = tempfile.mkdtemp()
    known = os.path.join(workdir, best, "info.json")
    if tf.io.gfile.exists(known):
        tf.io.gfile.makedirs(os.path.join(folder, best))
        tf.io.gfile.copy(known, os.path.join(folder, best, "info.json"))
    return folder


class _BestBackbone(train_utils.BestCheckpointExporter):
    """Keeps the best checkpoint, and its encoder as a file of its own."""

    def maybe_export_checkpoint(self, checkpoint, eval_logs, global_step, write_logs=True):
        better = super().maybe_export_checkpoint(checkpoint, eval_logs, global_step, write_logs)
        if better:
            save_backbone(checkpoint.model.encoder, os.path.join(self._export_dir, "backbone"))
        return better


class _Runner(train_lib.OrbitExperimentRunner):
    """Model Garden's runner, with resume on every worker: there, only the chief finds the checkpoint."""

    def _maybe_build_checkpoint_manager(self):
        manager = super()._maybe_build_checkpoint_manager()
        latest = tf.train.latest_checkpoint(self.model_dir)
        if self.strategy.extended.should_checkpoint or not latest:
            return manager
        # The others save into folders of their own (all must take part); give them the chief's last word, and its step.
        own = os.path.join(manager.directory, os.path.basename(latest))
        for file in tf.io.gfile.glob(f"{latest}.*"):
            tf.io.gfile.copy(file, own + file[len(latest) :])
        tf.compat.v1.train.update_checkpoint_state(manager.directory, own)
        return tf.train.CheckpointManager(
            self.trainer.checkpoint,
            directory=manager.directory,
            max_to_keep=1,
            step_counter=self.trainer.global_step,
            checkpoint_interval=self.params.trainer.checkpoint_interval,
        )


def _marked(dataset, is_query):
    """Keeps image and label, and says of each row whether it is a query."""

    def mark(batch):
        return {
            "image": batch["image"],
            "label": batch["label"],
            "query": tf.fill(tf.shape(batch["label"]), int(is_query)),  # workers do not exchange bools
        }

    return dataset.map(mark)
