"""Detection and segmentation from the sections of a config: task, model, optimizer, drawn records, the whole run."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict
from official.vision.configs import maskrcnn as rcnn_configs
from official.vision.configs import retinanet as retinanet_configs
from official.vision.configs import semantic_segmentation as segmentation_configs

from experiments.builders.backbone import backbone, norm_act
from experiments.builders.run import Run
from experiments.launch import session as sessions
from experiments.launch.schedule import StepSchedule
from tf_evonorm.mistakes import Mistake
from tf_pixpro import save_backbone
from tf_pixpro.data.record_index import record_files
from tf_pixpro.optimization import OPTIMIZERS
from tf_pixpro.train import loop
from tf_pixpro.train.precise_bn import PreciseNorm
from tf_pixpro.transfer import records, serving, tasks
from tf_pixpro.transfer.models import c4, detectors
from tf_pixpro.transfer.models.frozen import Frozen


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
      params: Model Garden's configuration of it.
      build: our builder of it.
      task: our task.
      any_size: whether its encoder takes images of any size.
    """

    params: type
    build: Callable
    task: type
    any_size: bool = False


KINDS = {
    "retinanet": Kind(retinanet_configs.RetinaNetTask, detectors.retinanet, tasks.RetinaNetTask),
    "mask_rcnn": Kind(rcnn_configs.MaskRCNNTask, detectors.mask_rcnn, tasks.MaskRCNNTask),
    "mask_rcnn_c4": Kind(rcnn_configs.MaskRCNNTask, c4.mask_rcnn_c4, tasks.MaskRCNNC4Task, any_size=True),
    "segmenter": Kind(
        segmentation_configs.SemanticSegmentationTask, detectors.segmenter, tasks.SegmentationTask, any_size=True
    ),
}


SECTIONS: tuple[str, ...] = ("train_data", "validation_data", "norm_act", "model", "losses", "init", "schedule")
SECTIONS += ("optimizer", "trainer", "runtime")


def experiment(session: sessions.Session) -> Run:
    """A run of detection or segmentation.

    The sections of its config, in data order: scenes: `drawn_records`, instead of your own records; train_data,
    validation_data: Model Garden's DataConfig; scores: annotation_file and kind, see
    `tf_pixpro.transfer.average_precision`; norm_act: name, reach ('backbone' or 'all') and the layer's arguments;
    encoder: name and the backbone's arguments; model: kind, the builder's own arguments (fcn) and Model Garden's model
    configuration; losses: its losses; init: checkpoint of the encoder, '' for none; init_modules: what is read of it,
    ('backbone',) by default, with 'decoder' and 'head' after a pre-training with `pyramid`; freeze: `Frozen`, if the
    encoder does not learn; precise_norm_steps: see `precise_norm`; window: of `SegmentationTask`; schedule:
    `StepSchedule`; optimizer: name and arguments; trainer, runtime: Model Garden's.
    """
    sessions.require(session.config, "seed", *SECTIONS)
    config, workdir, schedule, params, task = prepared(session)
    for name, mode in (("train_data", "train"), ("validation_data", "eval")):
        if mode in session.mode:
            _check_records(name, params.as_dict()[name]["input_path"])
    records.check_sets(params.train_data.input_path, params.validation_data.input_path)
    settings = loop.experiment_config(schedule.steps, schedule.batch, dict(config.trainer), dict(config.runtime))
    return Run(
        session,
        f"{config.model.kind}, {schedule.steps} steps of {schedule.batch}",
        functools.partial(
            loop.run,
            task,
            settings,
            session.strategy,
            workdir,
            session.mode,
            best=task.best,
            train_actions=functools.partial(precise_norm, config, task, settings, session.strategy),
            keep=lambda model, folder: save_backbone(task.encoder, os.path.join(folder, "backbone")),
        ),
    )


def export(session: sessions.Session) -> tf.keras.Model:
    """Serves a run's best checkpoint, or its latest where there is no best one, as `saved_model`; returns the model."""
    _, workdir, _, params, task = prepared(session)
    best = os.path.join(workdir, "best")
    checkpoint = best if tf.train.latest_checkpoint(best) else workdir
    model = task.build_model()
    served = os.path.join(workdir, "saved_model")
    summary = records.summary_of(params.validation_data.input_path) or {}
    exif = summary.get("exif", True)  # as the records were made, so the served model sees what it was trained on
    serving.export_transfer(model, params, served, checkpoint, summary.get("categories", {}), exif)
    print(f"{served}: {tf.train.latest_checkpoint(checkpoint)}, {', '.join(serving.SIGNATURES)}")
    return model


def prepared(session: sessions.Session) -> tuple[ConfigDict, str, StepSchedule, Any, Any]:
    """(config with the paths of drawn records, working folder, schedule, Model Garden's task configuration, task)."""
    config = session.config
    if config.get("scenes"):
        folder = os.path.join(session.workdir, "records")
        config = sessions.build(drawn_records, "scenes", config.scenes, config=config, folder=folder)
    schedule = sessions.build(StepSchedule, "schedule", config.schedule)
    params = task_params(config, schedule)
    return config, session.workdir, schedule, params, make_task(config, schedule, params, session.workdir)


def task_params(config: ConfigDict, schedule: StepSchedule) -> Any:
    """Model Garden's task configuration: the config's sections under its keys.

    Raises:
      Mistake: if the config has a key that Model Garden does not know, or lacks the records or some of their classes.
    """
    model = {key: value for key, value in _plain(config.model).items() if key not in ("kind", "fcn")}
    if config.model.kind not in KINDS:
        raise Mistake(f"config.model.kind must be one of {', '.join(KINDS)}. Received {config.model.kind!r}.")
    params = KINDS[config.model.kind].params()
    dtype = config.runtime.get("mixed_precision_dtype") or "float32"
    common = {"dtype": dtype, "global_batch_size": schedule.batch, "seed": config.seed}
    wanted = {
        "model": model,
        "losses": _plain(config.losses),
        "train_data": {**common, "is_training": True, **_plain(config.train_data)},
        "validation_data": {**common, "is_training": False, "drop_remainder": False, **_plain(config.validation_data)},
        "annotation_file": config.scores.get("annotation_file", "") if "scores" in config else "",
        "allow_image_summary": False,
    }
    if config.model.kind == "segmenter":
        del wanted["annotation_file"]
    try:
        params.override(wanted)
    except KeyError as error:
        raise Mistake(
            f"config.model, losses, train_data and validation_data hold Model Garden's keys: {error}"
        ) from error
    for name in ("train_data", "validation_data"):
        if not (params.as_dict()[name]["input_path"] or params.as_dict()[name]["tfds_name"]):
            raise Mistake(
                f"config.{name}.input_path must name records, such as records/bccd/train-*. Received ''. "
                "Make them with "
                "python -m experiments.prepare."
            )
    _count_classes(params)
    return params


def _count_classes(params):
    """Takes the number of classes from the records where the config has 0, and checks it where it has another one."""
    found = {name: class_names(params.as_dict()[name]["input_path"]) for name in ("train_data", "validation_data")}
    needed = {name: max(map(int, names), default=-1) + 1 for name, names in found.items()}
    if not params.model.num_classes:
        if not max(needed.values()):
            raise Mistake(
                "config.model.num_classes of 0 means as many as the records have. Received "
                f"{params.train_data.input_path}, with no list of classes beside it. Make the records with python -m "
                "experiments.prepare, pass their path, or pass the number of classes."
            )
        params.override({"model": {"num_classes": max(needed.values())}})
    for name, number in needed.items():
        if number > params.model.num_classes:
            raise Mistake(
                "config.model.num_classes must be larger than every class number. Received "
                f"{params.model.num_classes}, but the records "
                f"of config.{name} have classes up to {number - 1}. Pass {number}."
            )


def make_task(config: ConfigDict, schedule: StepSchedule, params: Any, workdir: str | None = None) -> Any:
    """The task of a config, without any weights yet."""
    kind = KINDS[config.model.kind]
    more = {"scores": config.scores.get("kind", "coco")} if "scores" in config else {}
    if config.get("window"):
        more["window"] = dict(config.window)
    return kind.task(
        params,
        functools.partial(detector, config, params),
        functools.partial(optimizer, config, schedule),
        init=config.init or None,
        init_modules=tuple(config.get("init_modules") or ("backbone",)),
        logging_dir=workdir,
        **more,
    )


def detector(config: ConfigDict, params: Any) -> tuple[tf.keras.Model, tf.keras.Model]:
    """(model, encoder) of a config, new weights."""
    settings = _plain(config.norm_act)
    reach = settings.pop("reach", "backbone")
    if reach not in ("backbone", "all"):
        raise Mistake(f"config.norm_act.reach must be backbone or all. Received {reach!r}.")
    layer = norm_act({"norm_act": settings})
    decay, freeze = params.losses.l2_weight_decay, config.get("freeze")
    if freeze and config.model.kind == "mask_rcnn_c4":
        raise Mistake("R50-C4's heads are part of its encoder, which learns. Received config.freeze. Leave it out.")
    regularizer = tf.keras.regularizers.l2(decay / 2) if decay else None  # as Model Garden halves it
    made = backbone(
        config,
        norm_act=layer,
        input_size=(None, None, 3) if KINDS[config.model.kind].any_size else tuple(params.model.input_size),
        kernel_regularizer=None if freeze else regularizer,
    )
    more = {"fcn": _plain(config.model.fcn)} if config.model.get("fcn") else {}
    model = KINDS[config.model.kind].build(
        sessions.build(Frozen, "freeze", _plain(freeze), encoder=made) if freeze else made,
        params.model,
        layer if reach == "all" else None,
        regularizer,
        **more,
    )
    return model, made


def optimizer(config: ConfigDict, schedule: StepSchedule) -> tf.keras.optimizers.Optimizer:
    """The optimizer that `config.optimizer.name` names, at the schedule's rate."""
    settings = {"name": "sgd", **_plain(config.optimizer)}
    return sessions.build_named(OPTIMIZERS, "optimizer", settings, learning_rate=schedule.learning_rate)


def precise_norm(
    config: ConfigDict, task: Any, experiment: Any, strategy: tf.distribute.Strategy, trainer: Any
) -> list[Callable]:
    """The action that computes moving statistics before an evaluation, over `config.precise_norm_steps` batches."""
    steps = config.get("precise_norm_steps", 0)
    if not steps:
        return []

    def batches():
        return iter(
            strategy.distribute_datasets_from_function(
                lambda context: task.build_inputs(experiment.task.train_data, context)
            )
        )

    every = experiment.trainer.validation_interval
    forward = functools.partial(task.forward, model=trainer.model)
    return [PreciseNorm(forward, trainer.model, batches, strategy, trainer.global_step, every, steps)]


def class_names(input_path: str) -> dict[Any, str]:
    """Class number, as text, -> name: what `experiments.prepare` left beside the records; empty if it is not there."""
    return (records.summary_of(str(input_path)) or {}).get("categories", {})


def drawn_records(
    config: ConfigDict,
    folder: str,
    train: int = 8,
    validation: int = 4,
    size: tuple[int, int] = (128, 128),
    objects: tuple[int, int] = (2, 6),
) -> ConfigDict:
    """Draws synthetic scenes and writes their records; returns a copy of the config with their paths."""
    config = config.copy_and_resolve_references()
    for number, (name, count) in enumerate((("train", train), ("validation", validation))):
        section = config[f"{name}_data"]
        pictures, categories = records.scenes(os.path.join(folder, name), count, number, size, objects)
        records.write_records(
            pictures, categories, folder, name, records.Problems(strict=True), shards=2, progress=False
        )
        section.input_path = os.path.join(folder, f"{name}-*.tfrecord")
    if "scores" in config:
        config.scores.annotation_file = os.path.join(folder, "validation_annotations.json")
    return config


def _check_records(section, patterns):
    patterns = patterns.split(",") if isinstance(patterns, str) else list(patterns or ())
    missing = [pattern for pattern in patterns if pattern and not record_files(pattern)]
    if missing:
        raise FileNotFoundError(
            f"config.{section}.input_path must name records that are there. Received {', '.join(missing)}, "
            "which matches no file, seen from "
            f"{os.getcwd()}. Make them with python -m experiments.prepare, or pass their path."
        )


def _plain(section):
    return section.to_dict() if hasattr(section, "to_dict") else dict(section or {})
