"""The whole job in one command: pre-train, compare with few labels, draw, export.

make demo
make demo IMAGES=my_photos/      (or a zip; your own images, no labels needed)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags
from matplotlib.figure import Figure
from ml_collections import ConfigDict, config_flags
from PIL import Image

from experiments.builders import pretext
from experiments.launch import session as sessions
from experiments.studies import few_labels
from tf_pixpro import data, export_encoder, load_backbone, positive_mask
from tf_pixpro.pretext.figures import correspondence_figure, similarity_figure

_SHOWN = 4


def demo(config: ConfigDict, workdir: str, images: str | None = None) -> dict[str, list[float]]:
    """Does all of it, saying where it is.

    Args:
      config: see `configs/demo.py`.
      workdir: folder that gets everything.
      images: folder or zip of images to pre-train on instead of scenes; there is no comparison then, for want of
        labels.

    Returns:
      {'from scratch': [mIoU of each seed], 'pre-trained': [...]}; empty with your own images.
    """
    workdir = os.path.abspath(workdir)
    source = plan(config, images)
    with sessions.start_session(config, os.path.join(workdir, "pretrain"), "train", program="demo") as session:
        print(f"1. Pre-training on {images or 'synthetic scenes, without their labels'}", flush=True)
        model, _ = pretext.experiment(session).start()
    examples, rows = ({}, {}) if images else compare(config, session.workdir, workdir)
    figure, saved = os.path.join(workdir, "demo.png"), os.path.join(workdir, "saved_model")
    draw(pretext_pictures(model, config, source), examples, figure)
    if tf.io.gfile.exists(saved):
        tf.io.gfile.rmtree(saved)
    export_encoder(model, saved, image_size=(config.labels.size,) * 2)
    if rows:
        print(
            f"\nmIoU (object, background) on {config.labels.held_out} other scenes, learnt from "
            f"{config.labels.scenes}:\n"
        )
        print(table_of(rows), end="\n\n")
    print(f"figure       {figure}")
    print(f"SavedModel   {saved}")
    print(f"backbone     {os.path.join(session.workdir, 'backbone')}, what Model Garden reads")
    print(f"TensorBoard  tensorboard --logdir {workdir}")
    return rows


def plan(config: ConfigDict, images: str | None = None) -> data.Source:
    """Opens the source of the images and sets what follows from their number; the run then has `config.steps` steps.

    Args:
      config: the demo's, changed in place.
      images: a folder or zip to be the source, with the views of `config.images`; or None.

    Returns:
      The `tf_pixpro.data.Source`.
    """
    if images:
        with config.unlocked(), config.ignore_type():
            config.source, config.views = {"path": os.path.abspath(images)}, config.images
    source = sessions.build(data.source, "source", config.source)
    config.schedule.batch = min(config.schedule.batch, source.num_examples)
    epoch = source.num_examples // config.schedule.batch
    config.schedule.epochs = (config.steps + 0.5) / epoch
    config.trainer.checkpoint_epochs = config.trainer.evaluation_epochs = config.schedule.epochs / 5
    return source


def compare(config: ConfigDict, pretrained: str, workdir: str) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Trains the segmenter from both starts with every seed.

    Args:
      config: the demo's.
      pretrained: folder with the checkpoint of pre-training.
      workdir: gets the summaries, in `finetune/`.

    Returns:
      ({'scene': images [4, H, W, 3] uint8, 'labels': maps [4, H, W], 'from scratch': maps that the last seed predicts,
      'pre-trained': ...}, {'from scratch': [mIoU of each seed], 'pre-trained': [...]}).
    """
    labels, settings = config.labels, dict(config.finetune)
    held_out = few_labels.labelled_scenes(labels.held_out, labels.size, seed=config.seed + 2000)
    seeds = range(settings.pop("seeds"))
    rows: dict[str, list[float]] = {"from scratch": [], "pre-trained": []}
    examples = {"scene": held_out[0][:_SHOWN], "labels": held_out[1][:_SHOWN]}
    print(f"2. Training a segmentation head and the encoder on {labels.scenes} labelled scenes, {2 * len(seeds)} times")
    for seed in seeds:
        train = few_labels.labelled_scenes(labels.scenes, labels.size, seed=config.seed + 1000 + seed)
        for start, scores in rows.items():
            tf.keras.utils.set_random_seed(seed)
            encoder = pretext.pretext_encoder(config)
            if start == "pre-trained":
                load_backbone(encoder, pretrained)
            model = few_labels.segmenter(encoder, config.model.level, labels.size)
            log_dir = os.path.join(workdir, "finetune", f"{start.replace(' ', '_')}-{seed}")
            scores.append(
                few_labels.fit_and_score(
                    model, train, held_out, seed, log_dir=log_dir, title=f"seed {seed}, {start}", **settings
                )
            )
            examples[start] = few_labels.predicted(model, examples["scene"])
    return examples, rows


def table_of(rows: Mapping[str, Sequence[float]]) -> str:
    """Mean, spread (standard deviation over seeds) and every value, in percent, as a Markdown table."""
    lines = ["| start | mIoU, mean ± spread | each seed |", "| --- | --- | --- |"]
    for start, values in rows.items():
        percent = 100 * np.asarray(values)
        each = "  ".join(f"{value:.1f}" for value in percent)
        lines.append(f"| {start} | {percent.mean():.1f} ± {percent.std(ddof=1):.1f} | {each} |")
    gains = 100 * (np.asarray(rows["pre-trained"]) - np.asarray(rows["from scratch"]))
    lines.append(
        f"| gain, same labels | {gains.mean():+.1f} ± {gains.std(ddof=1):.1f} | "
        f"{'  '.join(f'{g:+.1f}' for g in gains)} |"
    )
    return "\n".join(lines)


def pretext_pictures(model: tf.keras.Model, config: ConfigDict, source: data.Source) -> list[np.ndarray]:
    """Corresponding cells of two views, and what a cell resembles in both, of the image with most pairs.

    Each is [h, w, 3] uint8.
    """
    views = next(iter(pretext.views(config, source, min(32, source.num_examples))))
    maps = [model.project(views[name], training=False) for name in ("view1", "view2")]
    cells = maps[0].shape[1:3]
    pairs = tf.reduce_sum(tf.cast(positive_mask(views["box1"], views["box2"], cells, model.distance), tf.int32), [1, 2])
    best = int(tf.argmax(pairs))
    view1, view2, box1, box2 = (views[name][best] for name in ("view1", "view2", "box1", "box2"))
    return [
        correspondence_figure(view1, view2, box1, box2, cells, model.distance),
        similarity_figure(view1, view2, *(one[best].numpy() for one in maps)),
    ]


def draw(pictures: Sequence[np.ndarray], examples: Mapping[str, np.ndarray], path: str) -> None:
    """Writes one figure: the images below each other, then a row of scene, labels and predictions for each example."""
    columns, rows = len(examples), len(next(iter(examples.values()), ()))
    heights = [8 * picture.shape[0] / picture.shape[1] * picture.shape[1] / 900 for picture in pictures] + [
        2.0 * rows
    ] * bool(rows)
    figure = Figure(figsize=(8, sum(heights)), dpi=100, layout="constrained")
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    for part, picture in zip(parts, pictures):
        axes = part.subplots()
        axes.imshow(picture)
        axes.set_axis_off()
    if rows:
        grid = parts[-1].subplots(rows, columns, squeeze=False)
        for column, (title, images) in enumerate(examples.items()):
            grid[0][column].set_title(title, fontsize=10)
            for row, image in enumerate(images):
                colours = (
                    {} if image.ndim == 3 else {"cmap": "cividis", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
                )
                grid[row][column].imshow(image, **colours)
                grid[row][column].set_axis_off()
    figure.savefig(path)
    with Image.open(path) as image:  # a quarter of the bytes
        image.convert("RGB").quantize(256).save(path, optimize=True)


def _run():
    here = os.path.dirname(os.path.abspath(__file__))
    flags.DEFINE_string("workdir", "workdir/demo", "Folder that gets everything.")
    flags.DEFINE_string("images", None, "Folder or zip of JPEG and PNG images to pre-train on, instead of scenes.")
    config_flags.DEFINE_config_file("config", os.path.join(here, "configs", "demo.py"), "FILE.py or FILE.py:smoke.")

    def start(_):
        demo(flags.FLAGS.config, flags.FLAGS.workdir, flags.FLAGS.images)

    sessions.run(start)


if __name__ == "__main__":
    _run()
