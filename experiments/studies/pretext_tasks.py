"""Pretext tasks side by side: does the pixel task win where pixels count, the instance task where whole images do?

    python -m experiments.benchmark pretext --source=caltech101.zip --records=records/camvid \\
      --workdir=workdir/pretext --figure=docs/pretext.png

Every task is pre-trained by `compare_r18_photos` with the same encoder, images, steps and recipe; scratch is the
encoder with its initial weights. Each encoder is then evaluated in four ways: nearest neighbours and a linear layer on
frozen pooled features (`linear_r18_photos`), a 1x1 convolution on frozen maps (`camvid_fcn_r18:probe`), and fine-tuning
(`camvid_fcn_r18`, which says how to write the records). A run that is done is not repeated, and one that was
interrupted is resumed; `--tasks`, `--measures` and `--seeds` divide the work among processes. Of a finished run the
score and, of pre-training, the backbone are kept.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import statistics
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from experiments.builders import classifier, detector, pretext
from experiments.configs.classify import linear_r18_photos
from experiments.configs.pretrain import compare_r18_photos
from experiments.configs.transfer import camvid_fcn_r18
from experiments.studies import runs
from tf_pixpro import data, load_backbone
from tf_pixpro.pretext.probe import nearest_neighbour_accuracy

TASKS = {
    "scratch": "scratch",
    "simclr": "SimCLR",
    "byol": "BYOL",
    "pixcontrast": "PixContrast",
    "pixpro": "PixPro",
    "instance": "PixPro + SimCLR",
    "fpn": "PixPro on FPN",
}
MEASURES = {
    "knn": "nearest neighbours, accuracy",
    "linear": "linear layer, accuracy",
    "probe": "dense linear probe, mIoU",
    "finetune": "fine-tuned, mIoU",
}
PATTERN = "{row}-{seed}/{column}.json"


def main(arguments: Sequence[str]) -> None:
    """Pre-trains and evaluates what is not done yet, prints the table and draws the figure."""
    parser = runs.parser("pretext", __doc__, tasks=tuple(TASKS), measures=tuple(MEASURES))
    parser.add_argument("--source", help="folder or zip with train/CLASS and val/CLASS")
    parser.add_argument("--records", help="folder of CamVid's records, train-* and val-*")
    parser.add_argument("--epochs", type=float, default=20.0, help="of pre-training")
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of the channels of a ResNet-18")
    parser.add_argument(
        "--judging", type=float, default=1.0, help="multiplier of the steps of the three trained measures"
    )
    parser.add_argument("--smoke", action="store_true", help="tiny runs on drawn scenes, without source and records")
    options = parser.parse_args(arguments)
    if not options.smoke and not (options.source and options.records):
        parser.error("--source and --records are needed, or --smoke")
    study = runs.Runs(options.workdir, PATTERN)
    study.run(functools.partial(score, options), options.tasks, options.seeds, options.measures)
    table = study.results(TASKS, MEASURES)
    print(text(table))
    if options.figure:
        draw(table, options.figure)


def score(options: argparse.Namespace, task: str, measure: str, seed: int) -> float:
    """Returns the score of one encoder by one measure, in [0, 1]; pre-trains it if that is not done yet."""
    folder = options.workdir / f"{task}-{seed}"
    init = pretrained(folder / "pretrain", task, seed, options)
    result = evaluated(folder / measure, measure, init, seed, options)
    tidy(folder / measure, "*.index", "*.data-*")
    return result


def pretrained(
    folder: pathlib.Path,
    task: str,
    seed: int,
    options: argparse.Namespace,
    changes: Mapping[str, Any] = types.MappingProxyType({}),
) -> str:
    """Returns the checkpoint of the encoder that a task has trained; "" for scratch.

    Args:
      folder: of the run.
      task: of `compare_r18_photos`.
      seed: of the run.
      options: of the command.
      changes: of the config, see `changed`.
    """
    if task == "scratch":
        return ""
    if not (folder / "backbone.index").exists():  # written at the end of training
        print(f"{task}, seed {seed}: pre-training", flush=True)
        config = compare_r18_photos.get_config(f"{task}-smoke" if options.smoke else task)
        config.pictures, config.trainer.max_to_keep = 0, 1
        if not options.smoke:
            config.source.path, config.schedule.epochs = options.source, options.epochs
            config.backbone.width = options.width
        runs.train(pretext.experiment, changed(config, changes), folder, seed, "train")
        tidy(folder, "ckpt-*")
    return str(folder / "backbone")


def evaluated(
    folder: pathlib.Path,
    measure: str,
    init: str,
    seed: int,
    options: argparse.Namespace,
    changes: Mapping[str, Any] = types.MappingProxyType({}),
) -> float:
    """Returns the accuracy or mean IoU of an encoder, in [0, 1].

    Args:
      folder: of the run.
      measure: of `MEASURES`.
      init: checkpoint of the encoder, or "".
      seed: of the run.
      options: of the command.
      changes: of the config of a trained measure, see `changed`.
    """
    if measure in ("knn", "linear"):
        config = linear_r18_photos.get_config("smoke" if options.smoke else "")
        if not options.smoke:
            config.source.path, config.backbone.width = options.source, options.width
            config.schedule.epochs *= options.judging
        config.init = init
        if measure == "knn":
            return neighbours(config, seed)
        return runs.train(classifier.experiment, config, folder, seed)["accuracy"]
    variant = "probe" if measure == "probe" else ""
    config = camvid_fcn_r18.get_config(f"{variant}-smoke".strip("-") if options.smoke else variant)
    if not options.smoke:
        config.train_data.input_path = f"{options.records}/train-*.tfrecord"
        config.validation_data.input_path = f"{options.records}/val-*.tfrecord"
        config.backbone.width = options.width
        config.schedule.steps = round(options.judging * config.schedule.steps)
    config.init = init
    return runs.train(detector.experiment, changed(config, changes), folder, seed)["mean_iou"]


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """Returns a config with changes, dotted name -> value; a mapping replaces its whole section."""
    with config.unlocked(), config.ignore_type():
        for name, value in changes.items():
            *sections, last = name.split(".")
            owner = functools.reduce(lambda part, section: part[section], sections, config)
            owner[last] = ConfigDict(value) if isinstance(value, Mapping) else value
    return config


def neighbours(config: ConfigDict, seed: int) -> float:
    """Returns the k-NN accuracy of frozen features, without augmentation."""
    return nearest_neighbour_accuracy(*features(config, seed))


def features(config: ConfigDict, seed: int) -> list[np.ndarray]:
    """Returns the pooled features of a frozen encoder, without augmentation.

    Args:
      config: of `linear_r18_photos`.
      seed: of an encoder without checkpoint.

    Returns:
      [N, C] and labels [N] of the training images, [M, C] and [M] of the held-out images.
    """
    tf.keras.utils.set_random_seed(seed)
    encoder = classifier.model(config, 1).backbone.encoder
    if config.init:
        load_backbone(encoder, config.init)
    pooled = tf.function(lambda images: tf.reduce_mean(encoder(images, training=False)["5"], axis=[1, 2]))
    sets = []
    changes: list[dict[str, Any]] = [{}, dict(config.held_out)]
    for changed in changes:
        rows = data.labelled_dataset(data.source(**{**config.source, **changed}), config.views.size)
        batches = [(pooled(row["image"]).numpy(), row["label"].numpy()) for row in rows]
        sets += [np.concatenate(column) for column in zip(*batches)]
    return sets


def tidy(folder: pathlib.Path, *patterns: str) -> None:
    """Removes files that a finished run does not need any more."""
    for pattern in patterns:
        for path in folder.rglob(pattern):
            path.unlink()


def text(table: runs.Results) -> str:
    """Returns a Markdown table with a row for each task and a column for each measure, in per cent."""
    return runs.grid("pretext task", TASKS, MEASURES, table)


def draw(table: runs.Results, path: str) -> None:
    """Draws a panel for each measure: a point for each seed, a bar at the mean, a dotted line at that of scratch."""
    with runs.figure(path, [3.2] * len(MEASURES), 3.4, sharey=True) as panels:
        for axes, (measure, title) in zip(panels, MEASURES.items()):
            for position, task in enumerate(TASKS):
                values = runs.percent(table.get((task, measure), []))
                if values:
                    axes.scatter(values, [position] * len(values), color=f"C{position}", alpha=0.6, s=22)
                    axes.scatter(statistics.mean(values), position, color=f"C{position}", marker="|", s=300)
            if ("scratch", measure) in table:
                mean = 100 * statistics.mean(table["scratch", measure])
                axes.axvline(mean, color="grey", linestyle=":", linewidth=1)
            axes.set(title=title, xlabel="%")
            axes.grid(alpha=0.3, axis="x")
        panels[0].set_yticks(range(len(TASKS)), list(TASKS.values()))
        panels[0].set_ylim(len(TASKS) - 0.5, -0.5)
