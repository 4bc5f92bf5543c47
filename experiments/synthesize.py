"""Trains a class-conditional generator: BigGAN-deep with any normalization, on ImageNet, CIFAR-10 or your own folder of images.

python -m experiments.synthesize --config=experiments/configs/synthesize/biggan_32_cifar10.py --config.source.path=cifar10.zip --workdir=workdir/gan
"""

from __future__ import annotations

import functools
import os

import tensorflow as tf

from experiments.gan import scores as gan_scores
from experiments.gan.export import export_generator
from experiments.gan.samples import SamplePictures
from experiments.gan.task import AdversarialTask, Adversaries, Scores, StopAtCollapse
from experiments.launch import session as sessions
from tf_evonorm import biggan
from tf_evonorm.layers.named import norm_act
from tf_pixpro import data
from tf_pixpro.train import loop
from tf_pixpro.train.precise_bn import PreciseNorm, moving_statistics
from tf_pixpro.views.augment import centre_view, denormalized


def main(session: sessions.Session):
    """Runs one experiment.

    The sections of its config, in data order, are the keyword arguments of: source: `data.source`; held_out: what changes of it for the
    images that generated ones are compared with; images: size (height = width, pixels) and flip (probability); norm_act:
    `tf_evonorm.layers.named.norm_act`; generator, discriminator: the functions of `tf_evonorm.biggan`; schedule: steps and batch (images
    per step over all replicas); optimizers: generator and discriminator, each of `tf.keras.optimizers.Adam`; training:
    `AdversarialTask`; collapse_steps: of `StopAtCollapse`; precise_norm_steps: batches over which moving statistics of the averaged
    generator are taken anew; scores: `scores`; pictures: rows and columns of `SamplePictures`; trainer, runtime: Model Garden's.

    Without scores, train_and_eval is train.

    Returns:
      (`Adversaries`, results), see `tf_pixpro.train.loop.run`.
    """
    config, build = session.config, sessions.build
    source = build(data.source, "source", config.source)
    if not source.class_names:
        raise ValueError(f"classes are needed. Received {source.name} without. Put images into one folder per class.")
    names, steps, batch = source.class_names, config.schedule.steps, config.schedule.batch
    judged = build(scores, "scores", config.scores, config=config)
    mode = session.mode if judged or session.mode != "train_and_eval" else "train"
    task = build(
        AdversarialTask,
        "training",
        config.training,
        networks=lambda: Adversaries(
            functools.partial(generator, config, len(names)),
            functools.partial(
                build, biggan.discriminator, "discriminator", config.discriminator,
                resolution=config.images.size, num_classes=len(names),
            ),
        ),
        optimizers=functools.partial(optimizers, config),
        batches=functools.partial(batches, config, source),
        scores=judged,
        logging_dir=session.workdir,
    )  # fmt: skip
    experiment = loop.experiment_config(steps, batch, dict(config.trainer), dict(config.runtime))
    if session.chief:
        without = "" if judged else "; without scores, which need config.scores.classifier or config.scores.inception"
        print(
            f"{source.num_examples} images of {len(names)} classes, {steps} steps of {batch}, into {session.workdir}{without}",
            flush=True,
        )

    def actions(trainer):
        model, step, every = trainer.model, trainer.global_step, experiment.trainer.validation_interval
        folder = os.path.join(session.workdir, "pictures") if session.chief else None
        return [
            StopAtCollapse(model, config.collapse_steps, step, session.workdir),
            *precise(config, task, experiment, session.strategy, trainer),
            SamplePictures(model.average, len(names), folder, step, every, steps, seed=config.seed, **config.pictures),
        ]

    with sessions.quiet():
        keeper = functools.partial(keep, names)
        trained, results = loop.run(
            task, experiment, session.strategy, session.workdir, mode, task.best, keeper, actions
        )
    if session.chief and results:
        print("  ".join(f"{name} {value:.4f}" for name, value in results.items()))
    return trained, results


def generator(config, num_classes: int) -> tf.keras.Model:
    """The generator of a config, with new weights; layers that use the batch take that of all replicas unless told otherwise."""
    settings = {name: value for name, value in config.norm_act.items() if value is not None}
    if settings["layer"].startswith(("bn_", "evonorm_b")):
        settings.setdefault("synchronized", True)
    layer = norm_act(**settings)
    options = {"resolution": config.images.size, "num_classes": num_classes, "norm_act": layer}
    return sessions.build(biggan.generator, "generator", config.generator, **options)


def optimizers(config):
    """The generator's and the discriminator's optimizer."""
    return [
        sessions.build(tf.keras.optimizers.Adam, f"optimizers.{name}", config.optimizers[name])
        for name in ("generator", "discriminator")
    ]


def batches(config, source, context=None, start_step: int = 0) -> tf.data.Dataset:
    """What `AdversarialTask` trains on; latents and other labels depend, as the images do, on the seed and the running number alone."""
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


def coloured(view):
    """A normalized view as colours in -1..1."""
    return tf.clip_by_value(denormalized(view) / 127.5 - 1, -1, 1)


def scores(config, classifier="", name="", inception="", limit=None, batch=None, splits=10):
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
      ValueError: if both networks are given, or the images have no classes.
    """
    if classifier and inception:
        raise ValueError(f"one network judges. Received classifier={classifier!r} and inception={inception!r}.")
    if not classifier and not inception:
        return None
    network = gan_scores.classifier_network(classifier, name) if classifier else gan_scores.inception_network(inception)
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

    images(None)  # a source without labels is told now
    return Scores(images, network, splits)


def precise(config, task, experiment, strategy, trainer) -> list:
    """The action that takes the averaged generator's moving statistics anew, before each evaluation and at the end."""
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
    anew = PreciseNorm(forward, model.average, fresh, strategy, step, 1, steps)
    every, last = experiment.trainer.validation_interval, experiment.trainer.train_steps
    return [lambda output: anew() if step.numpy() % every == 0 or step.numpy() == last else None]


def keep(class_names, trained: Adversaries, folder: str):
    """Writes what `restored` reads: the averaged generator and the names of its classes."""
    tf.train.Checkpoint(model=trained.average).write(f"{folder}/generator")
    with tf.io.gfile.GFile(f"{folder}/labels.txt", "w") as file:
        file.write("\n".join(class_names) + "\n")


def restored(config, folder: str):
    """(the averaged generator that `keep` wrote, class names).

    Raises:
      FileNotFoundError: if no training has ended, or been evaluated, there.
    """
    if not tf.io.gfile.exists(f"{folder}/generator.index"):
        raise FileNotFoundError(
            f"a generator is kept at the end of training, and in best/ at each better evaluation. Received {folder!r} without one."
        )
    with tf.io.gfile.GFile(f"{folder}/labels.txt") as file:
        class_names = file.read().splitlines()
    kept = generator(config, len(class_names))
    tf.train.Checkpoint(model=kept).read(f"{folder}/generator").assert_existing_objects_matched().expect_partial()
    return kept, class_names


def export_synthesis(output: str, folder: str, config) -> str:
    """Writes a run's averaged generator as a SavedModel; returns one line about it."""
    kept, class_names = restored(config, folder)
    path = export_generator(kept, output, class_names)
    size = config.images.size
    return f"{path}: signatures serving_default (latent, label) and sample (seed, label, truncation); {len(class_names)} classes, {size} pixels"


if __name__ == "__main__":
    sessions.launch(main)
