"""Classification from the sections of its config: classifier, images, optimizer, what a run keeps, the whole run."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from experiments.builders.backbone import backbone, norm_act
from experiments.builders.run import Run, kept_class_names
from experiments.launch import session as sessions
from experiments.launch.schedule import Schedule, intervals
from tf_evonorm.mistakes import Mistake
from tf_pixpro import data
from tf_pixpro.checkpoints import save_backbone
from tf_pixpro.train import loop
from tf_pixpro.transfer.classification import ClassificationTask, classifier, half_squared_norm, training_view
from tf_pixpro.transfer.models.frozen import Frozen

SECTIONS: tuple[str, ...] = ("source", "held_out", "views", "head", "label_smoothing", "schedule", "rate", "optimizer")
SECTIONS += ("average", "evaluation", "trainer", "runtime")


def experiment(session: sessions.Session) -> Run:
    """A classification run.

    The sections of its config, in data order, are the keyword arguments of: source: `data.source`; held_out: what
    changes of it for the images to be evaluated on; max_bad_share: of `data.training_dataset`, for both; views:
    `tf_pixpro.transfer.classification.training_view`; evaluation: `held_out_images`; norm_act:
    `tf_evonorm.layers.named.norm_act`; backbone: the function of `tf_evonorm.backbones` that `name` names; init:
    checkpoint of the backbone, if any; freeze: `Frozen`, if only the classifier learns; head: `classifier`; schedule:
    `Schedule`; rate: `learning_rate`; warmup: `warmup`; optimizer: Model Garden's optimizer that `name` names; average:
    its EMAConfig, or None; trainer: `intervals`; runtime: its RuntimeConfig.
    """
    config, build = session.config, sessions.build
    sessions.require(config, "seed", *SECTIONS)
    source, held_out = sources(config)
    sessions.check_same_images(session, source)
    schedule = build(Schedule, "schedule", config.schedule, images=source.num_examples)
    prepare = build(training_view, "views", config.views)
    evaluation = functools.partial(
        build, held_out_images, "evaluation", config.evaluation, source=held_out, config=config
    )
    data.check_labels(source)

    def images(context, start):
        bad = config.get("max_bad_share", 0.01)
        return data.training_dataset(source, prepare, schedule.batch, config.seed, context, start, bad)

    names = source.class_names
    task = ClassificationTask(
        functools.partial(model, config, len(names)),
        images,
        lambda context: evaluation(context=context),
        len(names),
        label_smoothing=config.label_smoothing,
        logging_dir=session.workdir,
        init=config.get("init") or None,
    )
    trainer = build(intervals, "trainer", config.trainer, schedule=schedule)
    trainer["optimizer_config"] = optimization(config, schedule)
    settings = loop.experiment_config(schedule.steps, schedule.batch, trainer, dict(config.runtime))
    keeper = functools.partial(keep, names)
    return Run(
        session,
        f"{source.num_examples} images of {len(names)} classes, {schedule.epoch} steps of {schedule.batch} an epoch, "
        f"{schedule.steps} in all",
        functools.partial(loop.run, task, settings, session.strategy, session.workdir, session.mode, task.best, keeper),
    )


def sources(config: ConfigDict) -> tuple[data.Source, data.Source]:
    """(images to learn from, images to be evaluated on), whose labels are numbers of the same class names.

    Raises:
      Mistake: if the second has no classes, or one that the first lacks.
    """
    source = sessions.build(data.source, "source", config.source)
    held_out = sessions.build(data.source, "held_out", {**config.source, **(config.held_out or {})})
    return source, data.with_classes(held_out, source.class_names)


def model(config: ConfigDict, num_classes: int) -> tf.keras.Model:
    """The classifier of a config, with new weights."""
    freeze = config.get("freeze")
    made = backbone(
        config,
        norm_act=norm_act(config),
        input_size=(*config.views.size, 3) if config.evaluation.get("size") is None else (None, None, 3),
        kernel_regularizer=None if freeze else half_squared_norm(config.head.get("weight_decay", 0.0)),
    )
    if freeze:
        made = sessions.build(Frozen, "freeze", freeze, encoder=made)
    return sessions.build(classifier, "head", config.head, backbone=made, num_classes=num_classes)


def held_out_images(
    source: data.Source,
    config: ConfigDict,
    context: tf.distribute.InputContext | None,
    size: Sequence[int] | None = None,
    batch: int | None = None,
    limit: int | None = None,
    margin: float = 256 / 224,
) -> tf.data.Dataset:
    """Pairs (image, label) to evaluate on.

    Args:
      source, config, context: of the run.
      size: (height, width) in pixels; that of training by default.
      batch: images per step over all replicas; that of training by default.
      limit: at most so many images, evenly spread.
      margin: see `data.labelled_dataset`.
    """
    size, batch, bad = (size or config.views.size), batch or config.schedule.batch, config.get("max_bad_share", 0.01)
    rows = data.labelled_dataset(source, tuple(size), batch, context, limit, margin, bad)
    return rows.map(lambda row: (row["image"], row["label"]))


def optimization(config: ConfigDict, schedule: Schedule) -> dict[str, Any]:
    """Model Garden's OptimizationConfig of a config."""
    settings = dict(config.optimizer)
    kind = settings.pop("name", "sgd")
    rate = sessions.build(learning_rate, "rate", config.rate, schedule=schedule)
    return {
        "optimizer": {"type": kind, kind: settings},
        "learning_rate": rate,
        "ema": dict(config.average) if config.average else None,
        "warmup": sessions.build(warmup, "warmup", config.get("warmup"), schedule=schedule),
    }


def warmup(schedule: Schedule, start: float = 0.0) -> dict:
    """Model Garden's WarmupConfig: a linear rise from `start` times the peak."""
    settings = {"warmup_steps": schedule.warmup_steps, "warmup_learning_rate": start * schedule.peak}
    return {"type": "linear", "linear": settings} if schedule.warmup_steps else {}


def learning_rate(
    schedule: Schedule, kind: str = "cosine", epochs: Any = None, factor: float = 0.1, end: float = 0.0
) -> dict[str, Any]:
    """Model Garden's LrConfig.

    Args:
      schedule: of the run.
      kind: 'cosine', down to `end` after the warm-up; 'step', times `factor` at each of `epochs`; 'exponential', times
        `factor` every `epochs`, in steps, counted from the start; 'constant'.
      epochs: a sequence for 'step', a number for 'exponential'.
      factor, end: see `kind`.
    """
    peak = schedule.peak
    if kind == "cosine":
        settings = {"initial_learning_rate": peak, "decay_steps": schedule.steps - schedule.warmup_steps}
        settings.update({"alpha": end / peak} if end else {})
        return {"type": kind, kind: {**settings, "offset": schedule.warmup_steps}}
    if kind == "constant":
        return {"type": kind, kind: {"learning_rate": peak}}
    if kind == "step":
        values = [peak * factor**i for i in range(len(epochs) + 1)]
        return {
            "type": "stepwise",
            "stepwise": {"boundaries": [int(e * schedule.epoch) for e in epochs], "values": values},
        }
    if kind == "exponential":
        settings = {"initial_learning_rate": peak, "decay_rate": factor, "staircase": True}
        return {"type": kind, kind: {**settings, "decay_steps": max(1, int(epochs * schedule.epoch))}}
    raise Mistake(f"config.rate.kind must be cosine, step, exponential or constant. Received kind={kind!r}.")


def keep(class_names: Sequence[str], trained: tf.keras.Model, folder: str) -> None:
    """Writes a classifier's backbone for Model Garden, and the whole of it with its labels for `restored`."""
    save_backbone(trained.backbone, f"{folder}/backbone")
    tf.train.Checkpoint(model=trained).write(f"{folder}/classifier")
    with tf.io.gfile.GFile(f"{folder}/labels.txt", "w") as file:
        file.write("\n".join(class_names) + "\n")


def restored(config: ConfigDict, folder: str) -> tuple[tf.keras.Model, list[str]]:
    """What `keep` wrote.

    Args:
      config: of the run.
      folder: the run's, or its `best`.

    Returns:
      (the classifier with its trained weights, class names).

    Raises:
      FileNotFoundError: if no training has ended, or been evaluated, there.
    """
    class_names = kept_class_names(folder, "classifier")
    trained = model(config, len(class_names))
    tf.train.Checkpoint(model=trained).read(f"{folder}/classifier").assert_consumed()
    return trained, class_names
