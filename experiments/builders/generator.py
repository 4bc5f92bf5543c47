"""Image synthesis from the sections of a config: networks, images, optimizers, scores, the whole run."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from experiments.builders import classifier as classifiers
from experiments.builders.run import Run, kept_class_names
from experiments.gan import scores as gan_scores
from experiments.gan.export import export_generator
from experiments.gan.samples import SamplePictures
from experiments.gan.task import AdversarialTask, Adversaries, Scores, StopAtCollapse
from experiments.launch import session as sessions
from tf_evonorm import biggan
from tf_evonorm.layers.named import norm_act
from tf_evonorm.mistakes import Mistake
from tf_pixpro import data
from tf_pixpro.optimization import OPTIMIZERS
from tf_pixpro.train import loop
from tf_pixpro.train.precise_bn import PreciseNorm, moving_statistics
from tf_pixpro.views.augment import centre_view, denormalized, normalized


def experiment(session: sessions.Session) -> Run:
    """A run of adversarial training.

    The sections of its config, in data order, are the keyword arguments of: source: `data.source`; held_out: what
    changes of it for the images that generated ones are compared with; images: size (height = width, pixels) and flip
    (probability); norm_act: `tf_evonorm.layers.named.norm_act`; generator, discriminator: the functions of
    `tf_evonorm.biggan`; schedule: steps and batch (images per step over all replicas); optimizers: generator and
    discriminator, each a name, 'adam' by default, and its arguments; training: `AdversarialTask`; collapse_steps: of
    `StopAtCollapse`; precise_norm_steps: batches over which moving statistics of the averaged generator are computed
    again; scores: `scores`; pictures: rows and columns of `SamplePictures`; trainer, runtime: Model Garden's.

    Without scores, train_and_eval is train.
    """
    config, build = session.config, sessions.build
    source = build(data.source, "source", config.source)
    sessions.check_same_images(session, source)
    if not source.class_names:
        raise Mistake(f"classes are needed. Received {source.name} without. Put images into one folder per class.")
    names, steps, batch = source.class_names, config.schedule.steps, config.schedule.batch
    judged = build(scores, "scores", config.scores, config=config)
    task = build(
        AdversarialTask,
        "training",
        config.training,
        networks=functools.partial(networks, config, len(names)),
        optimizers=functools.partial(optimizers, config),
        batches=functools.partial(batches, config, source),
        scores=judged,
        logging_dir=session.workdir,
    )
    settings = loop.experiment_config(steps, batch, dict(config.trainer), dict(config.runtime))
    without = "" if judged else " (without scores, which need config.scores.classifier or config.scores.inception)"
    return Run(
        session,
        f"{source.num_examples} images of {len(names)} classes, {steps} steps of {batch}{without}",
        functools.partial(
            loop.run,
            task,
            settings,
            session.strategy,
            session.workdir,
            session.mode if judged or session.mode != "train_and_eval" else "train",
            task.best,
            functools.partial(keep, names),
            functools.partial(actions, session, task, settings, len(names)),
        ),
    )


def networks(config: ConfigDict, num_classes: int) -> Adversaries:
    """Generator, its average and discriminator of a config, with new weights."""
    sizes = {"resolution": config.images.size, "num_classes": num_classes}
    return Adversaries(
        functools.partial(generator, config, num_classes),
        functools.partial(sessions.build, biggan.discriminator, "discriminator", config.discriminator, **sizes),
    )


def actions(session: sessions.Session, task: AdversarialTask, settings: Any, num_classes: int, trainer: Any) -> list:
    """What is done beside the steps: stop at collapse, recomputed statistics of the average, sample images."""
    config, model, step = session.config, trainer.model, trainer.global_step
    every, steps = settings.trainer.validation_interval, config.schedule.steps
    folder = os.path.join(session.workdir, "pictures") if session.chief else None
    return [
        StopAtCollapse(model, config.collapse_steps, step, session.workdir),
        *precise(config, task, settings, session.strategy, trainer),
        SamplePictures(model.average, num_classes, folder, step, every, steps, seed=config.seed, **config.pictures),
    ]


def generator(config: ConfigDict, num_classes: int) -> tf.keras.Model:
    """The generator of a config, with new weights.

    Layers that use the batch take that of all replicas unless the config says otherwise.
    """
    settings = {name: value for name, value in config.norm_act.items() if value is not None}
    if settings["name"].startswith(("bn_", "evonorm_b")):
        settings.setdefault("synchronized", True)
    layer = norm_act(**settings)
    options = {"resolution": config.images.size, "num_classes": num_classes, "norm_act": layer}
    return sessions.build(biggan.generator, "generator", config.generator, **options)


def optimizers(config: ConfigDict) -> list[tf.keras.optimizers.Optimizer]:
    """The generator's and the discriminator's optimizer."""
    return [
        sessions.build_named(OPTIMIZERS, f"optimizers.{name}", {"name": "adam", **config.optimizers[name]})
        for name in ("generator", "discriminator")
    ]


def batches(
    config: ConfigDict,
    source: data.Source,
    context: tf.distribute.InputContext | None = None,
    start_step: int = 0,
) -> tf.data.Dataset:
    """What `AdversarialTask` trains on.

    Latents and drawn labels depend, as the images do, on the seed and the running number alone.
    """
    size, latent, classes = config.images.size, config.generator.get("latent", 128), len(source.class_names)

    def prepare(example, seed):
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        image = coloured(centre_view(example["bytes"], (size, size), margin=1.0))
        flip = tf.random.stateless_uniform([], seeds[0]) < config.images.flip
        return {
            "image": tf.where(flip, image[:, ::-1], image),
            "label": tf.cast(example["label"], tf.int64),
            "latent": tf.random.stateless_normal([2, latent], seeds[1]),
            "other_label": tf.random.stateless_uniform([2], seeds[2], 0, classes, tf.int64),
        }

    batch = config.schedule.batch * config.training.get("discriminator_steps", 1)
    return data.training_dataset(source, prepare, batch, config.seed, context, start_step)


def coloured(view: tf.Tensor) -> tf.Tensor:
    """A normalized view as colours in -1..1."""
    return tf.clip_by_value(denormalized(view) / 127.5 - 1, -1, 1)


def scores(
    config: ConfigDict,
    classifier: str = "",
    name: str = "",
    inception: str = "",
    limit: int | None = None,
    batch: int | None = None,
    splits: int = 10,
) -> Scores | None:
    """What generated images are judged by.

    Args:
      config: of the run.
      classifier: folder of a run of `experiments.classify`; the scores are then called after it.
      name: what they are called after instead of the classifier's backbone.
      inception: weights of Keras' InceptionV3, a path or "imagenet"; the scores are then `fid` and `inception_score`.
      limit: at most so many images, evenly spread; all by default.
      batch: images per step over all replicas; that of training by default.
      splits: see `gan_scores.InceptionScore`.

    Returns:
      A `Scores`, or None with neither network.

    Raises:
      Mistake: if both networks are given, or the images have no classes.
    """
    if classifier and inception:
        raise Mistake(f"one network judges. Received classifier={classifier!r} and inception={inception!r}.")
    if not classifier and not inception:
        return None
    network = classifier_network(classifier, name) if classifier else gan_scores.inception_network(inception)
    held_out = sessions.build(data.source, "held_out", {**config.source, **(config.held_out or {})})
    size, latent = config.images.size, config.generator.get("latent", 128)

    def images(context):
        part = context.input_pipeline_id if context else 0
        rows = data.labelled_dataset(held_out, (size, size), batch or config.schedule.batch, context, limit, margin=1.0)

        def with_latents(number, row):
            seed = tf.stack([tf.constant(config.seed + 1, tf.int64), number * 1000 + part])
            drawn = tf.random.stateless_normal([tf.shape(row["label"])[0], latent], seed)
            return {"image": coloured(row["image"]), "label": tf.cast(row["label"], tf.int64), "latent": drawn}

        return rows.enumerate().map(with_latents)

    data.check_labels(held_out)
    return Scores(images, network, splits)


def classifier_network(workdir: str, name: str = "") -> gan_scores.FeatureNetwork:
    """Returns the pooled features and probabilities of a classifier that `experiments.classify` has trained.

    Args:
      workdir: folder of the run, or its `best` below it.
      name: suffix of the names of the metrics; the name of the backbone by default.

    Raises:
      FileNotFoundError: if the folder is not that of a run that has stored its classifier.
    """
    folder = workdir.rstrip("/")
    homes = (home for home in (folder, os.path.dirname(folder)) if tf.io.gfile.exists(f"{home}/config.json"))
    config = sessions.recorded(next(homes, folder))
    size = tuple(config.evaluation.get("size") or config.views.size)

    def make() -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        classifier, _ = classifiers.restored(config, folder)
        features = tf.keras.Model(classifier.inputs, [classifier.layers[-1].input, classifier.output])

        def judge(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            views = tf.image.resize(normalized((images + 1) * 127.5), size)
            pooled, logits = features(views, training=False)
            return tf.cast(pooled, tf.float32), tf.nn.softmax(tf.cast(logits, tf.float32))

        return judge

    name = name or config.backbone.get("name", "classifier")
    return gan_scores.FeatureNetwork(make, f"frechet_distance_{name}", f"inception_score_{name}")


def precise(config: ConfigDict, task: Any, experiment: Any, strategy: tf.distribute.Strategy, trainer: Any) -> list:
    """The action that recomputes the averaged generator's moving statistics before each evaluation and at the end."""
    steps, model, step = config.precise_norm_steps, trainer.model, trainer.global_step
    if not steps or not list(moving_statistics(model.average)):
        return []

    def fresh():
        return iter(
            strategy.distribute_datasets_from_function(
                lambda context: batches(config, sessions.build(data.source, "source", config.source), context)
            )
        )

    forward = functools.partial(task.forward, model=model)
    refresh = PreciseNorm(forward, model.average, fresh, strategy, step, 1, steps)
    every, last = experiment.trainer.validation_interval, experiment.trainer.train_steps
    return [lambda output: refresh() if step.numpy() % every == 0 or step.numpy() == last else None]


def keep(class_names: Sequence[str], trained: Adversaries, folder: str) -> None:
    """Writes what `restored` reads: the averaged generator and the names of its classes."""
    tf.train.Checkpoint(model=trained.average).write(f"{folder}/generator")
    with tf.io.gfile.GFile(f"{folder}/labels.txt", "w") as file:
        file.write("\n".join(class_names) + "\n")


def restored(config: ConfigDict, folder: str) -> tuple[tf.keras.Model, list[str]]:
    """(the averaged generator that `keep` wrote, class names).

    Raises:
      FileNotFoundError: if no training has ended, or been evaluated, there.
    """
    class_names = kept_class_names(folder, "generator")
    kept = generator(config, len(class_names))
    tf.train.Checkpoint(model=kept).read(f"{folder}/generator").assert_existing_objects_matched().expect_partial()
    return kept, class_names


def export_synthesis(output: str, folder: str, config: ConfigDict) -> str:
    """Writes a run's averaged generator as a SavedModel; returns one line about it."""
    kept, class_names = restored(config, folder)
    path = export_generator(kept, output, class_names)
    size = config.images.size
    signatures = "signatures serving_default (latent, label) and sample (seed, label, truncation)"
    return f"{path}: {signatures}; {len(class_names)} classes, {size} pixels"
