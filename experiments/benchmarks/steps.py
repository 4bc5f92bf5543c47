"""Whole training steps of configs, made to be traced: of pretrain, classify, transfer and synthesize.

A step is that of one chip: forward and backward pass, optimizer, and what else its program does in each step. Nothing
is run; a config's images are replaced by what one chip's batch of them looks like.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import tensorflow as tf
from ml_collections import ConfigDict

from experiments.builders import pretext
from experiments.launch import sections
from experiments.launch.schedule import Schedule, StepSchedule
from experiments.launch.sections import SectionMistake
from tf_pixpro.train import loop
from tf_pixpro.train.task import built_optimizer

IMAGENET = 1_281_167  # images, which set the steps of a schedule
CLASSES = 1000  # of a config whose source is not there to be asked
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step that can be traced.

    Attributes:
      function: (*inputs) -> loss or losses; it changes the variables of its model and optimizer.
      inputs: `tf.TensorSpec`s of static shapes, nested as the function takes them.
      images: that one step trains on.
      weights: the trainable variables.
    """

    function: Callable
    inputs: tuple
    images: int
    weights: Sequence[tf.Variable]


def step_of(
    name: str, batch: int | None = None, changes: Sequence[str] = (), part: str = "", half: str = "bfloat16"
) -> Step:
    """The training step of a config, with new weights.

    Args:
      name: of a config of pretrain, classify, transfer or synthesize, with ':VARIANT' or without.
      batch: images per chip; the config's global batch by default.
      changes: 'SECTION.KEY=VALUE' each, as the programs' --config.SECTION.KEY=VALUE.
      part: 'generator' or 'discriminator' for that step of synthesize alone; '' for the whole.
      half: what stands for the config's half precision. A TPU has no float16; float16 brings loss scaling.

    Raises:
      SectionMistake: an unknown config or key.
    """
    kind, settings = config_of(name, changes)
    dtype = "float32" if settings.runtime.get("mixed_precision_dtype") == "float32" else half
    settings.runtime.mixed_precision_dtype = dtype
    tf.keras.mixed_precision.set_global_policy("float32" if dtype == "float32" else f"mixed_{dtype}")
    try:
        if kind == "synthesize":
            return _synthesis(settings, batch or settings.schedule.batch, part)
        return KINDS[kind](settings, batch or settings.schedule.batch)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")


def config_of(name: str, changes: Sequence[str] = ()) -> tuple[str, ConfigDict]:
    """(kind of program, config) of a config's name; see `step_of`."""
    name, _, variant = name.partition(":")
    kinds = [kind for kind in KINDS if (CONFIGS / kind / f"{name}.py").exists()]
    if not kinds:
        raise SectionMistake(
            f"--config must name a file of experiments/configs/{{{','.join(KINDS)}}}. Received {name!r}. "
            "An example is pixpro_r50_imagenet."
        )
    module = importlib.import_module(f"experiments.configs.{kinds[0]}.{name}")
    settings = module.get_config(variant) if variant else module.get_config()
    for change in changes:
        key, _, text = change.partition("=")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        with settings.unlocked():
            settings.update_from_flattened_dict({key: value})
    return kinds[0], settings


def _pretext(config, batch):
    schedule = sections.build(Schedule, "schedule", config.schedule, images=IMAGENET)
    model = pretext.pretext_model(config, schedule.steps)
    arguments = {**pretext.model_gardens_runtime(config), "enable_xla": False}
    runtime = loop.experiment_config(schedule.steps, batch, {}, arguments).runtime
    optimizer = built_optimizer(pretext.optimizer(config, schedule), model.trainable_weights, runtime)
    views = {f"view{i}": tf.TensorSpec([batch, *config.views.size, 3]) for i in (1, 2)}
    boxes = {f"box{i}": tf.TensorSpec([batch, 4]) for i in (1, 2)}
    return Step(
        lambda inputs: model.learn(inputs, optimizer)["loss"], ({**views, **boxes},), batch, model.trainable_weights
    )


def _classification(config, batch):
    from experiments.builders import classifier
    from tf_pixpro.transfer.classification import ClassificationTask  # ten seconds of imports

    schedule = sections.build(Schedule, "schedule", config.schedule, images=IMAGENET)
    classes = config.source.get("num_classes") or CLASSES
    task = ClassificationTask(
        lambda: classifier.model(config, classes), None, None, classes, label_smoothing=config.label_smoothing
    )
    trainer = {"optimizer_config": classifier.optimization(config, schedule)}
    settings = loop.experiment_config(schedule.steps, schedule.batch, trainer, dict(config.runtime))
    images = tf.TensorSpec([batch, *config.views.size, 3])
    return _of_task(task, settings, ((images, tf.TensorSpec([batch], tf.int64)),), batch)


def _detection(config, batch):
    from experiments.builders import detector

    with tempfile.TemporaryDirectory() as folder:
        # Records are read for the shapes of their labels alone.
        drawn = detector.drawn_records(config, folder, train=1, validation=1, size=(64, 64))
        schedule = sections.build(StepSchedule, "schedule", drawn.schedule)
        params = detector.task_params(drawn, schedule)
        params.train_data.global_batch_size = batch
        task = detector.make_task(drawn, schedule, params)
        inputs = task.build_inputs(params.train_data).element_spec
    settings = loop.experiment_config(schedule.steps, schedule.batch, {}, dict(config.runtime))
    return _of_task(task, settings, (inputs,), batch)


def _synthesis(config, batch, part=""):
    from experiments.builders import generator
    from experiments.gan.task import AdversarialTask

    task = AdversarialTask(
        lambda: generator.networks(config, CLASSES),
        lambda: generator.optimizers(config),
        None,
        **config.training,
    )
    settings = loop.experiment_config(config.schedule.steps, batch, {}, dict(config.runtime))
    rows, size, latent = batch, config.images.size, config.generator.get("latent", 128)
    rows *= 1 if part else config.training.get("discriminator_steps", 1)
    inputs = {
        "image": tf.TensorSpec([rows, size, size, 3]),
        "label": tf.TensorSpec([rows], tf.int64),
        "latent": tf.TensorSpec([rows, 2, latent]),
        "other_label": tf.TensorSpec([rows, 2], tf.int64),
    }
    return _of_task(task, settings, (inputs,), batch, part)


def _of_task(task, settings, inputs, images, part=""):
    model = task.build_model()
    optimizer = task.create_optimizer(settings.trainer.optimizer_config, settings.runtime)
    if hasattr(optimizer, "shadow_copy"):  # averages are made by Model Garden's trainer, which is not here
        optimizer.shadow_copy(model)
    weights = model.trainable_variables if isinstance(model, tf.Module) else model.trainable_weights
    parts = {
        "": lambda rows: task.train_step(rows, model, optimizer)[task.loss],
        "discriminator": lambda rows: task.discriminator_step(rows, model)[0],
        "generator": lambda rows: task.generator_step(rows, model, optimizer)[0],
    }
    return Step(parts[part], inputs, images, weights)


KINDS: dict[str, Callable] = {
    "pretrain": _pretext,
    "classify": _classification,
    "transfer": _detection,
    "synthesize": _synthesis,
}
