"""Accuracy over batch size: does BatchNorm fall where batches are small, and EvoNorm not?

    python -m experiments.benchmark batch-sizes --source=cifar10.zip --workdir=workdir/batch_sizes --figure=docs/batch_sizes.png

Each run is `experiments/classify.py` with the config evonorm_r20_cifar10 on one replica: a pre-activation ResNet of 8 layers,
random 24 x 24 crops (evaluated on all 32 x 32 pixels, as in the paper's proxy task), the learning rate in proportion to the
batch. Layers with groups have 8 of them: the network has 16 to 64 channels, and the usual 32 groups would be one channel each. A
run that is done is not done again; `--layers` and `--seeds` divide the work among processes, and `--figure` draws what there is.
"""

from __future__ import annotations

import argparse
import gc
import json
import pathlib
import statistics

import tensorflow as tf

from experiments.builders import classifier
from experiments.configs.classify import evonorm_r20_cifar10
from experiments.launch import session as sessions
from tf_evonorm.atomic import atomic_path

TITLES = {
    "bn_relu": "BatchNorm-ReLU",
    "gn_relu": "GroupNorm-ReLU",
    "frn": "FRN",
    "evonorm_b0": "EvoNorm-B0",
    "evonorm_s0": "EvoNorm-S0",
}
BATCHES = (128, 32, 8, 4)
GROUPED = ("gn_relu", "evonorm_s0")


def main(arguments):
    parser = argparse.ArgumentParser(prog="experiments.benchmark batch-sizes", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--source", required=True, help="folder or zip with train/CLASS and test/CLASS, images of 32 x 32"
    )
    parser.add_argument("--workdir", required=True, help="folder of the runs")
    parser.add_argument("--layers", nargs="*", default=list(TITLES), choices=list(TITLES), help="those to train now")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="those to train now")
    parser.add_argument("--epochs", type=float, default=5.0)
    parser.add_argument("--figure", help="PNG to be drawn")
    options = parser.parse_args(arguments)
    folder = pathlib.Path(options.workdir)
    for seed in options.seeds:
        for batch in BATCHES:
            for layer in options.layers:
                run(folder / f"{layer}_{batch}_{seed}", options.source, layer, batch, seed, options.epochs)
    table = accuracies(folder)
    print(text(table))
    if options.figure:
        draw(table, options.figure)


def run(folder: pathlib.Path, source: str, layer: str, batch: int, seed: int, epochs: float):
    """One training, unless its folder already has a result; a diverged one has the accuracy of chance."""
    done = folder / "accuracy.json"
    if done.exists():
        return
    config = evonorm_r20_cifar10.get_config()
    config.seed = seed
    config.source.path = source
    config.norm_act = {"layer": layer, **({"groups": 8} if layer in GROUPED else {})}
    config.views.update(size=(24, 24), scale=(0.5625, 0.5625), shift=0)
    config.evaluation.update(size=(32, 32), batch=200)
    config.backbone.blocks = (1, 1, 1)
    config.schedule.update(batch=batch, epochs=epochs, warmup_epochs=0.5)
    config.trainer.update(steps_per_loop=250, checkpoint_epochs=epochs, evaluation_epochs=epochs, max_to_keep=1)
    print(f"{layer}, batch {batch}, seed {seed}", flush=True)
    try:
        _, results = classifier.experiment(sessions.start_session(config, str(folder))).start()
        accuracy = results["accuracy"]
    except FloatingPointError as error:
        print(error)
        accuracy = 0.1
    with atomic_path(done) as partial:
        pathlib.Path(partial).write_text(json.dumps(accuracy))
    tf.keras.backend.clear_session()
    gc.collect()


def accuracies(folder: pathlib.Path) -> dict:
    """(layer, batch) -> accuracies of the seeds that are done."""
    table = {}
    for done in sorted(folder.glob("*/accuracy.json")):
        layer, batch, _ = done.parent.name.rsplit("_", 2)
        table.setdefault((layer, int(batch)), []).append(json.loads(done.read_text()))
    return table


def text(table: dict) -> str:
    """Markdown: a row for each layer, a column for each batch, mean and standard deviation in per cent."""
    rows = ["| layer | " + " | ".join(f"batch {batch}" for batch in BATCHES) + " |", "|---" * (len(BATCHES) + 1) + "|"]
    for layer, title in TITLES.items():
        cells = []
        for batch in BATCHES:
            values = [100 * value for value in table.get((layer, batch), [])]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ± {spread:.1f}" if values else "-")
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def draw(table: dict, path: str):
    """Accuracy over batch size, a line for each layer, bars of one standard deviation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4), dpi=110)
    for layer, title in TITLES.items():
        points = [(batch, [100 * v for v in table[layer, batch]]) for batch in BATCHES if (layer, batch) in table]
        spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in points]
        batches, means = [batch for batch, _ in points], [statistics.mean(values) for _, values in points]
        axes.errorbar(batches, means, yerr=spread, label=title, marker="o", capsize=3)
    axes.set(xscale="log", xlabel="images per batch", ylabel="accuracy on held-out images, %")
    axes.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
