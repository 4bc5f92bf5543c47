"""Which normalization serves a generator best: one budget for all, several seeds, a classifier as judge.

    python -m experiments.classify --config=experiments/configs/classify/evonorm_r20_cifar10.py --config.norm_act.layer=bn_relu \\
      --config.source.path=cifar10.zip --config.schedule.epochs=20.0 --workdir=workdir/judge
    python -m experiments.benchmark synthesis --source=cifar10.zip --classifier=workdir/judge --workdir=workdir/synthesis --figure=gan.jpg

Each run is `experiments/synthesize.py` with the config biggan_32_cifar10 and another layer in the generator. The scores are the
Fréchet distance and the Inception Score by the classifier's features, called after it: they can be compared with each other and with
no published FID. A run that is done is not done again; `--layers` and `--seeds` divide the work among processes. A run that diverges is
reported as such.
"""

from __future__ import annotations

import argparse
import gc
import json
import pathlib
import statistics

import numpy as np
import tensorflow as tf

from experiments.builders import generator
from experiments.configs.synthesize import biggan_32_cifar10
from experiments.launch import session as sessions
from tf_evonorm.atomic import atomic_path

TITLES = {
    "bn_relu": "BatchNorm-ReLU",
    "gn_relu": "GroupNorm-ReLU",
    "evonorm_b0": "EvoNorm-B0",
    "evonorm_s0": "EvoNorm-S0",
    "ln_relu": "LayerNorm-ReLU",
    "pixel_relu": "PixelNorm-ReLU",
}
JUDGE = "judge"
SCORES = {f"frechet_distance_{JUDGE}": "Fréchet distance", f"inception_score_{JUDGE}": "Inception Score"}


def main(arguments):
    parser = argparse.ArgumentParser(prog="experiments.benchmark synthesis", description=__doc__.split("\n")[0])
    parser.add_argument("--source", required=True, help="folder or zip with train/CLASS, images of 32 x 32")
    parser.add_argument("--classifier", required=True, help="folder of a run of experiments.classify, the judge")
    parser.add_argument("--workdir", required=True, help="folder of the runs")
    parser.add_argument(
        "--layers", nargs="*", default=list(TITLES)[:4], choices=list(TITLES), help="those to train now"
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="those to train now")
    parser.add_argument("--steps", type=int, help="of each run; the config's by default")
    parser.add_argument("--batch", type=int, help="images per step; the config's by default")
    parser.add_argument("--figure", help="picture to be drawn, PNG or JPEG: curves and samples")
    options = parser.parse_args(arguments)
    folder = pathlib.Path(options.workdir)
    for seed in options.seeds:
        for layer in options.layers:
            run(folder / f"{layer}_{seed}", layer, seed, options)
    found = results(folder)
    print(text(found))
    if options.figure:
        draw(found, options.figure)


def run(folder: pathlib.Path, layer: str, seed: int, options):
    """One training, unless its folder already has a result."""
    done = folder / "result.json"
    if done.exists():
        return
    config = biggan_32_cifar10.get_config()
    config.seed = seed
    config.source.path = options.source
    config.norm_act.layer = layer
    config.scores.update(classifier=options.classifier, name=JUDGE)
    config.schedule.update(steps=options.steps or config.schedule.steps, batch=options.batch or config.schedule.batch)
    print(f"{layer}, seed {seed}", flush=True)
    result = {}
    try:
        _, scores = generator.experiment(sessions.start_session(config, str(folder))).start()
        result = {name: scores[name] for name in SCORES}
    except FloatingPointError as error:
        print(error)
        result["diverged"] = str(error)
    result["curve"] = curve(folder / "validation", next(iter(SCORES)))
    with atomic_path(done) as partial:
        pathlib.Path(partial).write_text(json.dumps(result, indent=1))
    tf.keras.backend.clear_session()
    gc.collect()


def curve(folder: pathlib.Path, name: str) -> list:
    """[(step, value), ...] of one number in a folder of summaries."""
    return [
        (event.step, float(tf.make_ndarray(value.tensor)))
        for file in sorted(folder.glob("events.*"))
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
        if value.tag == name
    ]


def results(folder: pathlib.Path) -> dict:
    """layer -> results of the seeds that are done, with the path of each one's last `samples`."""
    found = {}
    for done in sorted(folder.glob("*/result.json")):
        grids = sorted(done.parent.glob("pictures/samples-*.png"), key=lambda path: int(path.stem.split("-")[1]))
        one = {**json.loads(done.read_text()), "samples": grids[-1] if grids else None}
        found.setdefault(done.parent.name.rsplit("_", 1)[0], []).append(one)
    return found


def text(found: dict) -> str:
    """Markdown: a row for each layer with mean and standard deviation of each score, each seed's distance, and how many diverged."""
    rows = [
        "| layer | " + " | ".join(SCORES.values()) + " | distance of each seed | diverged |",
        "|---|---|---|---|---|",
    ]
    for layer, title in TITLES.items():
        runs = found.get(layer, [])
        sound = [one for one in runs if "diverged" not in one]
        if not runs:
            continue
        cells = []
        for name in SCORES:
            values = [one[name] for one in sound]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.2f} ± {spread:.2f}" if values else "-")
        each = "  ".join(f"{one[next(iter(SCORES))]:.2f}" for one in sound)
        rows.append(f"| {title} | {' | '.join(cells)} | {each} | {len(runs) - len(sound)} of {len(runs)} |")
    return "\n".join(rows)


def draw(found: dict, path: str):
    """Fréchet distance over steps, a line for each seed, a colour for each layer; beside it the first seed's last samples."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    layers = [layer for layer in TITLES if layer in found]
    grids = [layer for layer in layers if found[layer][0]["samples"]]
    widths = [2.2] + [1] * len(grids)
    figure, panels = pyplot.subplots(
        1, len(widths), figsize=(2.4 * sum(widths), 3.6), dpi=110, width_ratios=widths, squeeze=False
    )
    axes, *others = panels[0]
    for number, layer in enumerate(layers):
        for index, one in enumerate(found[layer]):
            points = [point for point in one["curve"] if point[0]]
            label = "" if index else TITLES[layer]
            axes.plot(*np.transpose(points or [(), ()]), marker=".", color=f"C{number}", alpha=0.7, label=label)
    axes.set(xlabel="steps of the generator", ylabel="Fréchet distance of the judge's features")
    axes.grid(alpha=0.3)
    axes.legend()
    for panel, layer in zip(others, grids):
        panel.imshow(pyplot.imread(found[layer][0]["samples"]))
        panel.set_title(TITLES[layer], fontsize=9)
        panel.axis("off")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
