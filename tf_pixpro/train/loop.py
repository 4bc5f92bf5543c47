"""Model Garden's train loop for every task: resume on every worker, progress, best checkpoint, stop at NaN."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf
from absl import logging
from official.core import base_task, base_trainer, config_definitions, train_lib, train_utils
from official.modeling import optimization

from tf_evonorm.mistakes import Mistake
from tf_pixpro.train.actions import Progress, StopAtNonFinite

MODES = ("train", "eval", "train_and_eval")


def latest_step(folder: Optional[str]) -> int:
    """Global step of the latest checkpoint in a folder; 0 without one."""
    path = tf.train.latest_checkpoint(folder) if folder else None
    return int(train_utils.read_global_step_from_checkpoint(path)) if path else 0


def experiment_config(
    steps: int, global_batch: int, trainer: Mapping[str, Any] | None = None, runtime: Mapping[str, Any] | None = None
) -> config_definitions.ExperimentConfig:
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


def run(
    task: base_task.Task,
    config: config_definitions.ExperimentConfig,
    strategy: tf.distribute.Strategy,
    workdir: str,
    mode: str = "train_and_eval",
    best: tuple[str, str] | None = None,
    keep: Callable[[tf.keras.Model, str], object] | None = None,
    train_actions: Callable[[Any], list] | None = None,
    progress: bool = True,
) -> tuple[tf.keras.Model, dict[str, float]]:
    """Trains, evaluates, or both, with Model Garden's loop; a run started again in its folder is resumed.

    Args:
      task: a Model Garden task made with logging_dir=workdir.
      config: from `experiment_config`.
      strategy: a `tf.distribute.Strategy`.
      workdir: gets the checkpoints, `best/` (the best one), what `keep` writes, and summaries in `train/` and
        `validation/`.
      mode: 'train', 'eval' or 'train_and_eval'. The last also evaluates before the first step.
      best: (name of the result that ranks checkpoints, 'higher' or 'lower'), or None to keep no best one.
      keep: (model, folder) -> None, writes what others read of a model; called for `best/` with each better one and for
        `workdir` at the end of training.
      train_actions: trainer -> actions to be called with the results of each inner loop, see `tf_pixpro.train.actions`.
      progress: whether to draw a progress bar on stderr.

    Returns:
      (the trained model, with averaged weights if the optimizer averages; results of the last evaluation as a dict,
      empty if there was none).

    Raises:
      Mistake: if mode is unknown, 'eval' finds no checkpoint, or the latest one cannot be read.
      FloatingPointError: at the end of the inner loop in which a loss became non-finite; nothing is saved after that
        step.
      tf.errors.OpError: if the input fails, such as with too many undecodable images. The steps that were finished
        before are saved (not with several workers, which would wait for each other).
    """
    _check(workdir, mode, config.trainer.train_steps)
    config, chief = _ranked(config, best), strategy.extended.should_checkpoint
    kept = workdir if chief else _follower_folder(workdir, config.trainer.best_checkpoint_export_subdir)
    exporter = _exporter(config.trainer, kept, keep) if best is not None and mode == "train_and_eval" else None
    with strategy.scope():
        trainer = train_utils.create_trainer(
            config,
            task,
            train="train" in mode,
            evaluate="eval" in mode,
            checkpoint_exporter=exporter,
            trainer_cls=_Trainer,
        )
    bar = Progress(
        trainer.global_step, config.trainer.train_steps, config.task.train_data.global_batch_size, progress and chief
    )
    results: dict = {}
    after_train = [StopAtNonFinite(trainer.global_step, workdir), bar]
    if train_actions is not None:
        after_train += [*train_actions(trainer), bar.restart]
    runner = _Runner(
        strategy,
        task,
        mode,
        config,
        workdir,
        trainer=trainer,
        save_summary=chief,
        train_actions=after_train,
        eval_actions=[results.update, bar.restart],
    )
    with bar:
        _start(runner, trainer, strategy, mode)
    if "train" in mode and isinstance(trainer.optimizer, optimization.ExponentialMovingAverage):
        with strategy.scope():
            trainer.optimizer.swap_weights()  # the averages are what was evaluated, and what is kept
    if "train" in mode and keep is not None:
        keep(trainer.model, kept)
    return trainer.model, {name: float(value) for name, value in results.items()}


def _check(workdir, mode, steps):
    """Refuses an unknown mode and a folder that this mode cannot begin with."""
    latest = tf.train.latest_checkpoint(workdir)
    if mode not in MODES:
        raise Mistake(f"mode must be train, eval or train_and_eval. Received mode={mode!r}.")
    if mode == "eval" and not latest:
        raise Mistake(f"mode='eval' needs a checkpoint. Received workdir={workdir!r} without one. Train first.")
    _check_readable(latest)
    if "train" in mode and latest_step(workdir) >= steps:
        logging.warning("%s holds all %d steps of this run; nothing is left to train.", workdir, latest_step(workdir))


def _ranked(config, best):
    """The configuration with the result that ranks checkpoints."""
    if best is None:
        return config
    trainer = config.trainer.replace(best_checkpoint_eval_metric=best[0], best_checkpoint_metric_comp=best[1])
    return config.replace(trainer=trainer)


def _exporter(trainer, folder, keep):
    exporter = _Best(
        os.path.join(folder, trainer.best_checkpoint_export_subdir),
        trainer.best_checkpoint_eval_metric,
        trainer.best_checkpoint_metric_comp,
    )
    exporter.keep = keep
    return exporter


def _start(runner, trainer, strategy, mode):
    """Runs to the end, from an evaluation before the first step; where the input fails, keeps the finished steps."""
    if mode == "train_and_eval" and trainer.global_step.numpy() == 0:
        with strategy.scope():
            runner.controller.evaluate(steps=runner.params.trainer.validation_steps)
    try:
        runner.run()
    except tf.errors.OpError:
        if "train" in mode and not _many_workers(strategy):
            _keep_finished_steps(runner, trainer)
        raise


def _many_workers(strategy):
    return bool(strategy.cluster_resolver and strategy.cluster_resolver.cluster_spec().num_tasks("worker") > 1)


def _keep_finished_steps(runner, trainer):
    """Saves the state after the last whole step, unless that is saved already or no longer finite."""
    manager, step = runner.checkpoint_manager, int(trainer.global_step.numpy())
    saved = manager.latest_checkpoint and int(train_utils.read_global_step_from_checkpoint(manager.latest_checkpoint))
    if step == (saved or 0) or not all(np.isfinite(v.numpy()).all() for v in trainer.model.trainable_variables):
        return
    path = manager.save(checkpoint_number=step, check_interval=False)
    logging.warning("The input failed at step %d; what was learned until then is saved as %s.", step + 1, path)


def _check_readable(checkpoint):
    """Model Garden reads it deep inside, where a torn file is an error without a name."""
    if not checkpoint:
        return
    try:
        reader = tf.compat.v1.train.NewCheckpointReader(checkpoint)  # of ram://, load_checkpoint takes it for a folder
        for name in reader.get_variable_to_dtype_map():
            reader.get_tensor(name)
    except (IndexError, ValueError, tf.errors.OpError) as error:
        raise Mistake(
            f"the latest checkpoint must be complete. Received {checkpoint}, which cannot be read: {error}. "
            "Put an older one first in the "
            "file `checkpoint` beside it, or take another working folder."
        ) from error


class _Trainer(base_trainer.Trainer):
    """Model Garden's trainer; nothing of a step happens before its batch is there.

    Where the input fails, weights, counters and averages are therefore those of the last whole step.
    """

    def train_step(self, iterator):
        batch = self.next_train_inputs(iterator)
        parts = [self.strategy.experimental_local_results(part) for part in tf.nest.flatten(batch)]
        with tf.control_dependencies([tensor for tensors in parts for tensor in tensors]):
            super().train_step(iter([batch]))


class _Best(train_utils.BestCheckpointExporter):
    """Keeps the best checkpoint, and beside it what `keep` writes of its model."""

    keep: Optional[Callable] = None

    def maybe_export_checkpoint(self, checkpoint, eval_logs, global_step, write_logs=True):
        better = super().maybe_export_checkpoint(checkpoint, eval_logs, global_step, write_logs)
        if better and self.keep is not None:
            self.keep(checkpoint.model, self._export_dir)
        return better


def _follower_folder(workdir, best):
    """A folder for a worker that is not the chief: it takes part in saving and must know the best result."""
    folder = tempfile.mkdtemp()
    best_info = os.path.join(workdir, best, "info.json")
    if tf.io.gfile.exists(best_info):
        tf.io.gfile.makedirs(os.path.join(folder, best))
        tf.io.gfile.copy(best_info, os.path.join(folder, best, "info.json"))
    return folder


class _Runner(train_lib.OrbitExperimentRunner):
    """Model Garden's runner, with resume on every worker: there, only the chief finds the checkpoint."""

    def _maybe_build_checkpoint_manager(self):
        manager = super()._maybe_build_checkpoint_manager()
        latest = tf.train.latest_checkpoint(self.model_dir)
        if self.strategy.extended.should_checkpoint or not latest:
            return manager
        # The others save into folders of their own (all must take part); give them the chief's latest checkpoint and
        # its step.
        own = os.path.join(manager.directory, os.path.basename(latest))
        folder, name = os.path.split(latest)
        for file in tf.io.gfile.listdir(folder):
            if file.startswith(f"{name}."):
                tf.io.gfile.copy(os.path.join(folder, file), own + file[len(name) :])
        tf.compat.v1.train.update_checkpoint_state(manager.directory, own)
        return tf.train.CheckpointManager(
            self.trainer.checkpoint,
            directory=manager.directory,
            max_to_keep=1,
            step_counter=self.trainer.global_step,
            checkpoint_interval=self.params.trainer.checkpoint_interval,
        )
