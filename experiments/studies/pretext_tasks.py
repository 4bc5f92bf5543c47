"""Pretext tasks side by side: is the pixel task ahead where pixels count, the instance task where whole images do?

    python -m experiments.benchmark pretext --source=caltech101.zip --records=records/camvid --workdir=workdir/pretext --figure=docs/pretext.png

Every task is pre-trained by `compare_r18_photos` with the same encoder, images, steps and recipe; scratch is the encoder as it was drawn.
Each encoder is then judged four ways: nearest neighbours and a linear layer on frozen pooled features (`linear_r18_photos`), a 1x1
convolution on frozen maps (`camvid_fcn_r18:probe`), and fine-tuning (`camvid_fcn_r18`). The records are those that `camvid_fcn_r18` tells how
to make. What is done is not done again, and a run that was stopped goes on; `--tasks`, `--measures` and `--seeds` divide the work among
processes. Of a finished run its score and, of pre-training, the backbone stay.
"""

from __future__ import annotations

import argparse
import gc
import json
import pathlib
import statistics

import numpy as np
import tensorflow as tf
from absl import logging

from experiments.builders import classifier, detector, pretext
from experiments.configs.classify import linear_r18_photos
from experiments.configs.pretrain import compare_r18_photos
from experiments.configs.transfer import camvid_fcn_r18
from experiments.launch import session as sessions
from tf_evonorm.atomic import atomic_path
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


def main(arguments):
    parser = argparse.ArgumentParser(prog="experiments.benchmark pretext", description=__doc__.split("\n")[0])
    parser.add_argument("--source", help="folder or zip with train/CLASS and val/CLASS")
    parser.add_argument("--records", help="folder of CamVid's records, train-* and val-*")
    parser.add_argument("--workdir", required=True, help="folder of the runs")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS), help="those to do now")
    parser.add_argument("--measures", nargs="*", default=list(MEASURES), choices=list(MEASURES), help="those to do now")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="those to do now")
    parser.add_argument("--epochs", type=float, default=20.0, help="of pre-training")
    parser.add_argument("--width", type=float, default=1.0, help="share of the channels of a ResNet-18")
    parser.add_argument(
        "--judging", type=float, default=1.0, help="share of the steps that the three trained judges take"
    )
    parser.add_argument("--figure", help="PNG to be drawn")
    parser.add_argument("--smoke", action="store_true", help="tiny runs on drawn scenes, without source and records")
    options = parser.parse_args(arguments)
    if not options.smoke and not (options.source and options.records):
        parser.error("--source and --records are needed, or --smoke")
    logging.use_absl_handler()  # so that what belongs into the logs of the runs is not shown
    folder = pathlib.Path(options.workdir)
    for seed in options.seeds:
        for task in options.tasks:
            run(folder / f"{task}-{seed}", task, seed, options)
    table = scores(folder)
    print(text(table))
    if options.figure:
        draw(table, options.figure)


def run(folder: pathlib.Path, task: str, seed: int, options):
    """Pre-trains an encoder and judges it, as far as that is not done yet; what diverges has no score."""
    folder.mkdir(parents=True, exist_ok=True)
    open_measures = [measure for measure in options.measures if not (folder / f"{measure}.json").exists()]
    try:
        init = pretrained(folder / "pretrain", task, seed, options) if open_measures else ""
        for measure in open_measures:
            print(f"{task}, seed {seed}: {measure}", flush=True)
            score = judged(folder / measure, measure, init, seed, options)
            with atomic_path(folder / f"{measure}.json") as partial:
                pathlib.Path(partial).write_text(json.dumps(score))
            tidy(folder / measure, "*.index", "*.data-*")
    except FloatingPointError as error:
        print(error)


def pretrained(folder: pathlib.Path, task: str, seed: int, options) -> str:
    """Path of the encoder that a task leaves; '' for scratch."""
    if task == "scratch":
        return ""
    if not (folder / "backbone.index").exists():  # written when training has ended
        print(f"{task}, seed {seed}: pre-training", flush=True)
        config = compare_r18_photos.get_config(f"{task}-smoke" if options.smoke else task)
        config.pictures, config.trainer.max_to_keep = 0, 1
        if not options.smoke:
            config.source.path, config.schedule.epochs = options.source, options.epochs
            config.encoder.width = options.width
        start(pretext.experiment, config, folder, seed, "train")
        tidy(folder, "ckpt-*")
    return str(folder / "backbone")


def judged(folder: pathlib.Path, measure: str, init: str, seed: int, options) -> float:
    """Accuracy or mean IoU of an encoder, a share."""
    if measure in ("knn", "linear"):
        config = linear_r18_photos.get_config("smoke" if options.smoke else "")
        if not options.smoke:
            config.source.path, config.backbone.width = options.source, options.width
            config.schedule.epochs *= options.judging
        config.init = init
        return (
            neighbours(config, seed)
            if measure == "knn"
            else start(classifier.experiment, config, folder, seed)["accuracy"]
        )
    variant = "probe" if measure == "probe" else ""
    config = camvid_fcn_r18.get_config(f"{variant}-smoke".strip("-") if options.smoke else variant)
    if not options.smoke:
        config.train_data.input_path = f"{options.records}/train-*.tfrecord"
        config.validation_data.input_path = f"{options.records}/val-*.tfrecord"
        config.encoder.width = options.width
        config.schedule.steps = round(options.judging * config.schedule.steps)
    config.init = init
    return start(detector.experiment, config, folder, seed)["mean_iou"]


def start(binary, config, folder: pathlib.Path, seed: int, mode="train_and_eval") -> dict:
    """Runs one experiment; its last evaluation."""
    config.seed = seed
    logger = logging.get_absl_logger()
    handlers = list(logger.handlers)
    try:
        _, results = binary(sessions.start_session(config, str(folder), mode)).start()
    finally:
        logger.handlers[:] = handlers  # the log of this run is none of the next
    tf.keras.backend.clear_session()
    gc.collect()
    return results


def neighbours(config, seed: int) -> float:
    """k-NN accuracy of frozen features, without augmentation."""
    tf.keras.utils.set_random_seed(seed)
    encoder = classifier.model(config, 1).backbone.encoder
    if config.init:
        load_backbone(encoder, config.init)
    pooled = tf.function(lambda images: tf.reduce_mean(encoder(images, training=False)["5"], axis=[1, 2]))
    sets = []
    for changed in ({}, config.held_out):
        rows = data.labelled_dataset(data.source(**{**config.source, **changed}), config.views.size)
        batches = [(pooled(row["image"]).numpy(), row["label"].numpy()) for row in rows]
        sets += [np.concatenate(column) for column in zip(*batches)]
    return nearest_neighbour_accuracy(*sets)


def tidy(folder: pathlib.Path, *patterns: str):
    """Removes what a run that has ended needs no more."""
    for pattern in patterns:
        for path in folder.rglob(pattern):
            path.unlink()


def scores(folder: pathlib.Path) -> dict:
    """(task, measure) -> scores of the seeds that are done, in the order of the seeds."""
    table = {}
    for task in TASKS:
        for measure in MEASURES:
            done = sorted(folder.glob(f"{task}-*/{measure}.json"), key=lambda path: int(path.parent.name.split("-")[1]))
            if done:
                table[task, measure] = [json.loads(path.read_text()) for path in done]
    return table


def text(table: dict) -> str:
    """Markdown: a row for each task, a column for each measure, mean and standard deviation over seeds in per cent."""
    rows = ["| pretext task | " + " | ".join(MEASURES.values()) + " |", "|---" * (len(MEASURES) + 1) + "|"]
    for task, title in TASKS.items():
        cells = []
        for measure in MEASURES:
            values = [100 * value for value in table.get((task, measure), [])]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}" if values else "-")
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def draw(table: dict, path: str):
    """A panel for each measure: a point for each seed, a bar at the mean of each task, a dotted line at that of scratch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(MEASURES), figsize=(3.2 * len(MEASURES), 3.4), dpi=110, sharey=True)
    for axes, (measure, title) in zip(panels, MEASURES.items()):
        for place, task in enumerate(TASKS):
            values = [100 * value for value in table.get((task, measure), [])]
            if values:
                axes.scatter(values, [place] * len(values), color=f"C{place}", alpha=0.6, s=22)
                axes.scatter(statistics.mean(values), place, color=f"C{place}", marker="|", s=300)
        if ("scratch", measure) in table:
            axes.axvline(100 * statistics.mean(table["scratch", measure]), color="grey", linestyle=":", linewidth=1)
        axes.set(title=title, xlabel="%")
        axes.grid(alpha=0.3, axis="x")
    panels[0].set_yticks(range(len(TASKS)), list(TASKS.values()))
    panels[0].set_ylim(len(TASKS) - 0.5, -0.5)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
