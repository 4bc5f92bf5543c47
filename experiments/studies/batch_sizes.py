"""Accuracy over batch size: does BatchNorm lose accuracy at small batches, and EvoNorm not?

    python -m experiments.benchmark batch-sizes --source=cifar10.zip --workdir=workdir/batch_sizes --figure=batch.png

Each run is `experiments/classify.py` with the config evonorm_r20_cifar10 on one replica: a pre-activation ResNet of 8
layers, random 24 x 24 crops (evaluated on all 32 x 32 pixels, as in the paper's proxy task), a learning rate
proportional to the batch. Layers with groups have 8 of them: the network has 16 to 64 channels, where the usual 32
groups would be one channel each. A run that is done is not repeated; `--layers` and `--seeds` divide the work among
processes, and `--figure` draws what there is.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

from experiments.builders import classifier
from experiments.configs.classify import evonorm_r20_cifar10
from experiments.studies import runs

TITLES = {
    "bn_relu": "BatchNorm-ReLU",
    "gn_relu": "GroupNorm-ReLU",
    "frn": "FRN",
    "evonorm_b0": "EvoNorm-B0",
    "evonorm_s0": "EvoNorm-S0",
}
BATCHES = (128, 32, 8, 4)
GROUPED = ("gn_relu", "evonorm_s0")
PATTERN = "{row}_{column}_{seed}/accuracy.json"


def main(arguments: Sequence[str]) -> None:
    """Trains what is not done yet, prints the table and draws the figure."""
    parser = runs.parser("batch-sizes", __doc__, layers=tuple(TITLES))
    parser.add_argument("--source", required=True, help="folder or zip with train/CLASS and test/CLASS, 32 x 32 pixels")
    parser.add_argument("--epochs", type=float, default=5.0, help="of each run")
    options = parser.parse_args(arguments)
    study = runs.Runs(options.workdir, PATTERN)
    train = functools.partial(accuracy, options.workdir, options.source, options.epochs)
    study.run(train, options.layers, options.seeds, BATCHES)
    results = study.results(TITLES, BATCHES)
    print(text(results))
    if options.figure:
        draw(results, options.figure)


def accuracy(workdir: pathlib.Path, source: str, epochs: float, layer: str, batch: int, seed: int) -> float:
    """Trains one classifier and returns its accuracy; a run that diverges has that of chance."""
    config = evonorm_r20_cifar10.get_config()
    config.source.path = source
    config.norm_act = {"name": layer, **({"groups": 8} if layer in GROUPED else {})}
    config.views.update(size=(24, 24), scale=(0.5625, 0.5625), shift=0)
    config.evaluation.update(size=(32, 32), batch=200)
    config.backbone.blocks = (1, 1, 1)
    config.schedule.update(batch=batch, epochs=epochs, warmup_epochs=0.5)
    config.trainer.update(steps_per_loop=250, checkpoint_epochs=epochs, evaluation_epochs=epochs, max_to_keep=1)
    try:
        return runs.train(classifier.experiment, config, workdir / f"{layer}_{batch}_{seed}", seed)["accuracy"]
    except FloatingPointError as error:
        print(error)
        return 0.1


def text(results: runs.Results) -> str:
    """Returns a Markdown table with a row for each layer and a column for each batch, in per cent."""
    return runs.grid("layer", TITLES, {batch: f"batch {batch}" for batch in BATCHES}, results)


def draw(results: runs.Results, path: str) -> None:
    """Draws accuracy over batch size, a line for each layer with bars of one standard deviation."""
    with runs.figure(path, [7.5], 4.0) as (axes,):
        for layer, title in TITLES.items():
            points = {batch: runs.percent(results[layer, batch]) for batch in BATCHES if (layer, batch) in results}
            means, deviations = zip(*map(runs.statistics_of, points.values())) if points else ((), ())
            axes.errorbar(list(points), means, yerr=deviations, label=title, marker="o", capsize=3)
        axes.set(xscale="log", xlabel="images per batch", ylabel="accuracy on held-out images, %")
        axes.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
        axes.minorticks_off()
        axes.invert_xaxis()
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
