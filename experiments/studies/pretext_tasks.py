"""Pretext tasks side by side: does the pixel task win where pixels count, the instance task where whole images do?

    python -m experiments.benchmark pretext --source=caltech101.zip --records=records/camvid \\
      --workdir=workdir/pretext --epochs 6 20 60 --record=docs/pretext.json --figure=docs/pretext.png

Every task is pre-trained by `compare_r18_photos` with the same encoder, images, steps and recipe, for each length;
scratch is the encoder with its initial weights. `--photos` are other images to pre-train on, such as a folder of all
at hand. Each encoder is then evaluated in up to five ways: nearest neighbours and a linear layer on frozen pooled
features of the source (`linear_r18_photos`), a 1x1 convolution on frozen maps (`camvid_fcn_r18:probe`), and fine-tuning
for segmentation (`camvid_fcn_r18`) and, with `--boxes`, detection (`bccd_retinanet_r18`); both configs say how to write
the records. A run that is done is not repeated, and one that was interrupted is resumed; `--tasks`, `--measures` and
`--seeds` divide the work among processes. Of a finished run the score and, of pre-training, the backbone are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import pathlib
import statistics
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from experiments.builders import classifier, detector, pretext
from experiments.configs.classify import linear_r18_photos
from experiments.configs.pretrain import compare_r18_photos
from experiments.configs.transfer import bccd_retinanet_r18, camvid_fcn_r18
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
    "detection": "fine-tuned, AP50 of boxes",
}
PATTERN = "{row}-{seed}/{column}.json"


def main(arguments: Sequence[str]) -> None:
    """Pre-trains and evaluates what is not done yet, prints the table, writes the record and draws the figure."""
    parser = runs.parser("pretext", __doc__, tasks=tuple(TASKS), measures=tuple(MEASURES))
    parser.add_argument("--source", help="folder or zip with train/CLASS and val/CLASS")
    parser.add_argument("--photos", help="folder, zip or records to pre-train on; the source's train/ by default")
    parser.add_argument("--records", help="folder of CamVid's records, train-* and val-*")
    parser.add_argument("--boxes", help="folder of BCCD's records, without which there is no detection")
    parser.add_argument("--epochs", nargs="+", type=float, default=[20.0], help="of pre-training, one or more lengths")
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of the channels of a ResNet-18")
    parser.add_argument("--judging", type=float, default=1.0, help="multiplier of the steps of the trained measures")
    parser.add_argument("--record", type=pathlib.Path, help="JSON file of all results, which are not run again")
    parser.add_argument("--smoke", action="store_true", help="tiny runs on drawn scenes, without source and records")
    options = parser.parse_args(arguments)
    if not options.smoke and not (options.source and options.records):
        parser.error("--source and --records are needed, or --smoke")
    if not options.boxes:
        options.measures = [measure for measure in options.measures if measure != "detection"]
    study = runs.Runs(options.workdir, PATTERN)
    if options.record and options.record.exists():
        runs.unpack(runs.read(options.record), study)
    study.run(functools.partial(score, options), rows(options.tasks, options.epochs), options.seeds, options.measures)
    table = study.results(rows(TASKS, options.epochs), MEASURES)
    print(text(table, options.epochs))
    if options.record:
        runs.write(table, options.record)
    if options.figure and len(options.epochs) == 1:
        draw(table, options.epochs[0], options.figure)
    elif options.figure:
        draw_lengths(table, options.epochs, options.figure)


def rows(tasks: Iterable[str], lengths: Sequence[float]) -> dict[str, str]:
    """Returns the rows of the study: TASK@EPOCHS -> title, and scratch, which has no length."""
    titles = {}
    for task in tasks:
        if task == "scratch":
            titles[task] = TASKS[task]
            continue
        for epochs in lengths:
            titles[row(task, epochs)] = TASKS[task] + (f", {epochs:g} epochs" if len(lengths) > 1 else "")
    return titles


def row(task: str, epochs: float) -> str:
    """Returns the name of a row."""
    return task if task == "scratch" else f"{task}@{epochs:g}"


def score(options: argparse.Namespace, name: str, measure: str, seed: int) -> float:
    """Returns the score of one encoder by one measure, in [0, 1]; pre-trains it if that is not done yet."""
    folder, (task, _, epochs) = options.workdir / f"{name}-{seed}", name.partition("@")
    changes: dict[str, Any] = {} if options.smoke or not epochs else {"schedule.epochs": float(epochs)}
    if options.photos and not options.smoke:
        changes |= {"source.path": options.photos, "source.split": None}
    init = pretrained(folder / "pretrain", task, seed, options, changes)
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
            config.source.path, config.backbone.width = options.source, options.width
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
    """Returns the accuracy, mean IoU or AP50 of an encoder, in [0, 1].

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
    config = _transferred(measure, options)
    config.init = init
    results = runs.train(detector.experiment, changed(config, changes), folder, seed)
    return results["AP50" if measure == "detection" else "mean_iou"]


def _transferred(measure: str, options: argparse.Namespace) -> ConfigDict:
    """The config of a measure that a program of transfer takes."""
    size = "smoke" if options.smoke else ""
    if measure == "detection":
        config, records = bccd_retinanet_r18.get_config(size), options.boxes
        if not options.smoke:
            config.scores.annotation_file = f"{records}/val_annotations.json"
    else:
        variant = "-".join(filter(None, ["probe" if measure == "probe" else "", size]))
        config, records = camvid_fcn_r18.get_config(variant), options.records
    if not options.smoke:
        config.train_data.input_path = f"{records}/train-*.tfrecord"
        config.validation_data.input_path = f"{records}/val-*.tfrecord"
        config.backbone.width = options.width
        config.schedule.steps = round(options.judging * config.schedule.steps)
        if config.schedule.drops:
            config.schedule.drops = tuple(round(options.judging * step) for step in config.schedule.drops)
    return config


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


def text(table: runs.Results, lengths: Sequence[float]) -> str:
    """Returns a Markdown table with a row for each task and length and a column for each measure, in per cent."""
    measures = {name: title for name, title in MEASURES.items() if name != "detection" or _judged(table, name)}
    return runs.grid("pretext task", rows(TASKS, lengths), measures, table)


def _judged(table: runs.Results, measure: str) -> bool:
    return any(column == measure for _, column in table)


def draw(table: runs.Results, epochs: float, path: str) -> None:
    """Draws a panel for each measure: a point for each seed, a bar at the mean, a dotted line at that of scratch."""
    with _panels(table, path, sharey=True) as panels:
        for axes, measure in panels:
            for position, task in enumerate(TASKS):
                values = runs.percent(table.get((row(task, epochs), measure), []))
                if values:
                    axes.scatter(values, [position] * len(values), color=f"C{position}", alpha=0.6, s=22)
                    axes.scatter(statistics.mean(values), position, color=f"C{position}", marker="|", s=300)
            if ("scratch", measure) in table:
                mean = 100 * statistics.mean(table["scratch", measure])
                axes.axvline(mean, color="grey", linestyle=":", linewidth=1)
            axes.set(title=MEASURES[measure], xlabel="%")
            axes.grid(alpha=0.3, axis="x")
        panels[0][0].set_yticks(range(len(TASKS)), list(TASKS.values()))
        panels[0][0].set_ylim(len(TASKS) - 0.5, -0.5)


def draw_lengths(table: runs.Results, lengths: Sequence[float], path: str) -> None:
    """Draws a panel for each measure: score over epochs, a line for each task, its band of one standard deviation."""
    with _panels(table, path) as panels:
        for axes, measure in panels:
            for position, (task, title) in enumerate(TASKS.items()):
                known = [epochs for epochs in lengths if (row(task, epochs), measure) in table]
                scores = [runs.percent(table[row(task, epochs), measure]) for epochs in known]
                if not known:
                    continue
                mean, spread = np.transpose([runs.statistics_of(values) for values in scores])
                style = {"color": "grey", "linestyle": ":"} if task == "scratch" else {"color": f"C{position}"}
                axes.plot(known, mean, marker="o", markersize=3, label=title, **style)
                axes.fill_between(known, mean - spread, mean + spread, color=style["color"], alpha=0.15)
            axes.set(title=MEASURES[measure], xlabel="epochs", xscale="log")
            axes.set_xticks(lengths, [f"{epochs:g}" for epochs in lengths], minor=False)
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        panels[0][0].set_ylabel("%")
        panels[0][0].legend(fontsize=7)


@contextlib.contextmanager
def _panels(table: runs.Results, path: str, **settings: Any) -> Iterator[list[tuple[Any, str]]]:
    """Yields (axes, measure) of the measures that have scores, and writes the figure at the end."""
    measures = [measure for measure in MEASURES if _judged(table, measure)] or list(MEASURES)[:1]
    with runs.figure(path, [3.2] * len(measures), 3.4, **settings) as panels:
        yield list(zip(panels, measures))
