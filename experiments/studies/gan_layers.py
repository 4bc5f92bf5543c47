"""Which normalization suits a generator best: the same budget for all, several seeds, a classifier's features.

    python -m experiments.classify --config=experiments/configs/classify/evonorm_r20_cifar10.py \\
      --config.norm_act.name=bn_relu --config.source.path=cifar10.zip --config.schedule.epochs=20.0 \\
      --workdir=workdir/judge
    python -m experiments.benchmark synthesis --source=cifar10.zip --classifier=workdir/judge \\
      --workdir=workdir/synthesis --figure=gan.jpg

Each run is `experiments/synthesize.py` with the config biggan_32_cifar10 and another layer in the generator. The scores
are the Fréchet distance and the Inception Score by the features of that classifier; they are comparable with each other
and with no published FID. A run that is done is not repeated; `--layers` and `--seeds` divide the work among processes.
A run that diverges is reported as such.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Sequence
from typing import Optional

import numpy as np
import tensorflow as tf

from experiments.builders import generator
from experiments.configs.synthesize import biggan_32_cifar10
from experiments.studies import runs

TITLES = {
    "bn_relu": "BatchNorm-ReLU",
    "gn_relu": "GroupNorm-ReLU",
    "evonorm_b0": "EvoNorm-B0",
    "evonorm_s0": "EvoNorm-S0",
    "ln_relu": "LayerNorm-ReLU",
    "pixel_relu": "PixelNorm-ReLU",
}
JUDGE = "judge"
DISTANCE, SCORE = f"frechet_distance_{JUDGE}", f"inception_score_{JUDGE}"
PATTERN = "{row}_{seed}/result.json"


def main(arguments: Sequence[str]) -> None:
    """Trains what is not done yet, prints the table and draws the figure."""
    parser = runs.parser("synthesis", __doc__, layers=tuple(TITLES))
    parser.set_defaults(layers=list(TITLES)[:4])
    parser.add_argument("--source", required=True, help="folder or zip with train/CLASS, images of 32 x 32 pixels")
    parser.add_argument("--classifier", required=True, help="folder of a run of experiments.classify")
    parser.add_argument("--steps", type=int, help="of each run; the config's by default")
    parser.add_argument("--batch", type=int, help="images per step; the config's by default")
    options = parser.parse_args(arguments)
    runs.Runs(options.workdir, PATTERN).run(functools.partial(train, options), options.layers, options.seeds)
    found = results(options.workdir)
    print(text(found))
    if options.figure:
        draw(found, options.workdir, options.figure)


def train(options: argparse.Namespace, layer: str, _: str, seed: int) -> dict:
    """Trains one generator; returns its scores or how it diverged, and the distance over the steps."""
    folder = options.workdir / f"{layer}_{seed}"
    config = biggan_32_cifar10.get_config()
    config.source.path = options.source
    config.norm_act.name = layer
    config.scores.update(classifier=options.classifier, name=JUDGE)
    config.schedule.update(steps=options.steps or config.schedule.steps, batch=options.batch or config.schedule.batch)
    try:
        scores = runs.train(generator.experiment, config, folder, seed)
        result = {name: scores[name] for name in (DISTANCE, SCORE)}
    except FloatingPointError as error:
        print(error)
        result = {"diverged": str(error)}
    return {**result, "curve": curve(folder / "validation", DISTANCE)}


def curve(folder: pathlib.Path, name: str) -> list[tuple[int, float]]:
    """Returns [(step, value), ...] of one scalar in a folder of summaries."""
    return [
        (event.step, float(tf.make_ndarray(value.tensor)))
        for file in sorted(folder.glob("events.*"))
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
        if value.tag == name
    ]


def results(folder: pathlib.Path) -> dict[str, list[dict]]:
    """Returns layer -> results of the seeds that are done."""
    return {layer: seeds for (layer, _), seeds in runs.Runs(folder, PATTERN).results(TITLES).items()}


def samples(folder: pathlib.Path, layer: str) -> Optional[pathlib.Path]:
    """Returns the last grid of samples of the first seed of a layer, if there is one."""
    for run in sorted(folder.glob(f"{layer}_*"), key=lambda path: path.name.rpartition("_")[2].zfill(9)):
        grids = sorted(run.glob("pictures/samples-*.png"), key=lambda path: int(path.stem.split("-")[1]))
        return grids[-1] if grids else None
    return None


def text(found: dict[str, list[dict]]) -> str:
    """Returns a Markdown table with a row for each layer: scores over seeds, each distance, how many diverged."""
    rows = []
    for layer, seeds in found.items():
        finite = [one for one in seeds if "diverged" not in one]
        cells = [runs.mean_and_deviation([one[name] for one in finite], digits=2) for name in (DISTANCE, SCORE)]
        each = "  ".join(f"{one[DISTANCE]:.2f}" for one in finite)
        rows.append([TITLES[layer], *cells, each, f"{len(seeds) - len(finite)} of {len(seeds)}"])
    head = ["layer", "Fréchet distance", "Inception Score", "distance of each seed", "diverged"]
    return runs.markdown(head, rows)


def draw(found: dict[str, list[dict]], folder: pathlib.Path, path: str) -> None:
    """Draws the distance over steps, a line for each seed and a colour for each layer, beside the last samples."""
    from matplotlib.image import imread  # imported only where a figure is drawn

    grids = {layer: grid for layer in found if (grid := samples(folder, layer))}
    with runs.figure(path, [5.3] + [2.4] * len(grids), 3.6) as (axes, *panels):
        for number, (layer, seeds) in enumerate(found.items()):
            for index, one in enumerate(seeds):
                points = [point for point in one["curve"] if point[0]]
                label = "" if index else TITLES[layer]
                axes.plot(*np.transpose(points or [(), ()]), marker=".", color=f"C{number}", alpha=0.7, label=label)
        axes.set(xlabel="steps of the generator", ylabel="Fréchet distance of the classifier's features")
        axes.grid(alpha=0.3)
        axes.legend()
        for panel, (layer, grid) in zip(panels, grids.items()):
            panel.imshow(imread(grid))
            panel.set_title(TITLES[layer], fontsize=9)
            panel.axis("off")
