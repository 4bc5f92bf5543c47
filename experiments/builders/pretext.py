"""Pre-training from the sections of its config: encoder, pretext model, optimizer, views, evaluation, the whole run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from experiments.builders.backbone import backbone, norm_act
from experiments.builders.run import Run
from experiments.launch import session as sessions
from experiments.launch.schedule import Schedule, intervals
from tf_evonorm.mistakes import Mistake
from tf_pixpro import BYOL, PixContrast, PixelPropagation, PixPro, ProjectionHead, SimCLR, data
from tf_pixpro.optimization import OPTIMIZERS
from tf_pixpro.pretext import probe
from tf_pixpro.train import loop
from tf_pixpro.train.pretext_task import PixProTask, Probe, pretrain

MODELS = {"pixpro": PixPro, "pixcontrast": PixContrast}
INSTANCES = {"byol": BYOL, "simclr": SimCLR}
SECTIONS = ("source", "views", "model", "schedule", "optimizer", "evaluation", "trainer", "runtime")
CLASSIFIERS = {"knn": probe.nearest_neighbour_accuracy, "linear": probe.linear_accuracy}


def experiment(session: sessions.Session) -> Run:
    """A pre-training run.

    The sections of its config, in data order, are the keyword arguments of: source: `data.source`; views:
    `data.pretrain_dataset`; norm_act and backbone: see `experiments.builders.backbone`; projection,
    propagation, instance, pyramid, model: see `pretext_model`; schedule: `Schedule`; trainer: `intervals`; optimizer,
    evaluation: the functions below; runtime: Model Garden's `RuntimeConfig`, and `tf_data_service_address` of
    `data.pretrain_dataset`.
    """
    config, build = session.config, sessions.build
    sessions.require(config, "seed", *SECTIONS)
    source = build(data.source, "source", config.source)
    sessions.check_same_images(session, source)
    schedule = build(Schedule, "schedule", config.schedule, images=source.num_examples)
    runtime, service = model_gardens_runtime(config), config.runtime.get("tf_data_service_address")
    xla = runtime.pop("enable_xla", False) and not isinstance(session.strategy, tf.distribute.TPUStrategy)
    judged = None
    if "eval" in session.mode:
        judged = build(evaluation, "evaluation", config.evaluation, config=config, schedule=schedule)
    task = PixProTask(
        functools.partial(pretext_model, config, schedule.steps),
        functools.partial(optimizer, config, schedule),
        lambda context, start: views(config, source, schedule.batch, context, start, service),
        judged,
        jit_compile=xla,
        logging_dir=session.workdir,
    )
    trainer = build(intervals, "trainer", config.trainer, schedule=schedule)
    settings = loop.experiment_config(schedule.steps, schedule.batch, trainer, runtime)
    pictures = None
    if config.get("pictures") and session.mode != "eval":
        pictures = next(iter(views(config, source, config.pictures)))
    return Run(
        session,
        f"{source.num_examples} images, {schedule.epoch} steps of {schedule.batch} an epoch, {schedule.steps} in all",
        functools.partial(pretrain, task, settings, session.strategy, session.workdir, session.mode, pictures),
    )


def model_gardens_runtime(config: ConfigDict) -> dict[str, Any]:
    """Returns the arguments of Model Garden's `RuntimeConfig` in the config."""
    return {key: value for key, value in config.runtime.items() if key != "tf_data_service_address"}


def pretext_model(config: ConfigDict, steps: int) -> PixPro:
    """The model of a config, for a run of that many steps; new weights.

    The section `model` names its kind, `pixpro` (the default) or `pixcontrast`; a section `instance` adds the term that
    it names, `byol` or `simclr`; a section `pyramid` puts `tf_pixpro.transfer.models.pyramid.pyramid` on the encoder.
    """
    build, parts, settings = sessions.build, {}, {"name": "pixpro", **config.model}
    if settings.get("pixel_weight", 1.0):
        parts["projection"] = build(ProjectionHead, "projection", config.get("projection"), name="projection")
    if parts and settings["name"] == "pixpro":
        parts["propagation"] = build(PixelPropagation, "propagation", config.get("propagation"), name="propagation")
    if "instance" in config:
        parts["instance"] = sessions.build_named(INSTANCES, "instance", config.instance)
    return sessions.build_named(MODELS, "model", settings, encoder=pretext_encoder(config), steps=steps, **parts)


def pretext_encoder(config: ConfigDict) -> tf.keras.Model:
    """The encoder of a config; new weights."""
    encoder = backbone(config, norm_act=norm_act(config))
    if "pyramid" not in config:
        return encoder
    from tf_pixpro.transfer.models.pyramid import (
        pyramid,  # Model Garden's vision part takes ten seconds to import
    )

    return sessions.build(pyramid, "pyramid", config.pyramid, backbone=encoder)


def optimizer(config: ConfigDict, schedule: Schedule) -> tf.keras.optimizers.Optimizer:
    """The optimizer that `config.optimizer.name` names, with the section's other arguments, at the schedule's rate."""
    settings = {"name": "lars", **config.optimizer}
    return sessions.build_named(OPTIMIZERS, "optimizer", settings, learning_rate=schedule.learning_rate)


def evaluation(
    config: ConfigDict,
    schedule: Schedule,
    kind: str = "knn",
    bank: Mapping[str, Any] | None = None,
    queries: Mapping[str, Any] | None = None,
    bank_limit: int | None = None,
    query_limit: int | None = None,
) -> Probe | Callable[..., tf.data.Dataset]:
    """What is evaluated while training.

    Args:
      config, schedule: of the run.
      kind: 'knn' or 'linear', a probe on labelled images; 'pretext', the pretext loss without training.
      bank: what is other than in `config.source` for the images to learn from; None as a value changes nothing.
      queries: what is other than in the bank for the images to classify; of 'pretext' what is other than in
        `config.source`.
      bank_limit, query_limit: at most so many images.

    Returns:
      As `PixProTask` takes it.
    """
    if kind not in (*CLASSIFIERS, "pretext"):
        raise Mistake(f"config.evaluation.kind must be knn, linear or pretext. Received {kind!r}.")
    sections = [dict(config.source)]
    for changed in (bank, queries) if kind != "pretext" else (queries, {}):
        sections.append({**sections[-1], **{key: value for key, value in (changed or {}).items() if value is not None}})
    if kind != "pretext" and sections[1] == sections[2]:
        raise Mistake(
            "config.evaluation must classify other images than it learns from. Received one set for both. "
            "Put images into train/CLASS "
            "and val/CLASS and name them by bank.split=train and queries.split=val."
        )
    first, second = (
        sessions.build(data.source, f"evaluation.{name}", section)
        for name, section in zip(("bank", "queries"), sections[1:])
    )
    if kind == "pretext":
        steps = max(1, min(query_limit or second.num_examples, second.num_examples) // schedule.batch)
        return lambda context: views(config, second, schedule.batch, context).take(steps)
    second = data.with_classes(second, first.class_names)

    def labelled(source, limit):
        settings = {"size": config.views.size, "batch": schedule.batch, "limit": limit}
        return lambda context: data.labelled_dataset(source, input_context=context, **settings)

    return Probe(labelled(first, bank_limit), labelled(second, query_limit), CLASSIFIERS[kind], f"{kind}_accuracy")


def views(
    config: ConfigDict,
    source: data.Source,
    batch: int,
    context: tf.distribute.InputContext | None = None,
    start_step: int = 0,
    service: str | None = None,
) -> tf.data.Dataset:
    """Batches of views as `config.views` says, made by the workers of a tf.data service if its address is given."""
    return sessions.build(
        data.pretrain_dataset,
        "views",
        config.views,
        source=source,
        global_batch=batch,
        seed=config.seed,
        input_context=context,
        start_step=start_step,
        tf_data_service_address=service,
    )
