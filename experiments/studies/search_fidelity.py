"""Fidelity of proxies: which brief training ranks layers as a long training in other networks does, and at what cost?

    python -m experiments.benchmark fidelity --source=cifar10.zip --workdir=workdir/fidelity --record=docs/fidelity.json

Layers of different worth, some of them bad, are trained in the anchors of the small searches and in narrow, deep ones;
accuracy is measured after several numbers of steps. The truth is their accuracy on other images after longer trainings
with a cosine schedule in two deeper networks that no proxy contains. Each training is stored when it ends and is not
repeated; `--layers`, `--trainings` and `--seeds` divide the work among processes.
"""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf
from scipy import stats

from experiments.builders import study as builder
from experiments.configs.search import evonorm_b_small
from experiments.studies import runs
from tf_evonorm import backbones
from tf_evonorm.backbones.inverted_residual import Stage, inverted_residual_network
from tf_evonorm.layers import named
from tf_evonorm.search.space.graph import Graph
from tf_evonorm.search.space.graph_layer import layer_from_graph
from tf_evonorm.search.trial.anchors import Anchor, NormAct, small_anchors
from tf_evonorm.search.trial.proxy_task import Images, Run, Training

PATTERN = "{row}/{column}_{seed}.json"
GROUPS = 2  # as in the small searches
GRAPHS = {
    "bn_tanh": "mean_batch(0) neg(4) add(0,5) std_batch(0) div(6,7) tanh(8)",
    "bn_linear": "mean_batch(0) neg(4) add(0,5) std_batch(0) div(6,7)",
    "x_over_std_group": "std_group(0) div(0,4)",
    "x_over_rms_layer": "rms_layer(0) div(0,4)",
    "tanh": "tanh(0)",
    "sigmoid": "sigmoid(0)",
    "relu": "max(0,1)",
    "identity": "add(0,1)",
}
LAYERS = (*(name for name in named.LAYERS if name != "bn_swish"), *GRAPHS)
TRUTH_STEPS = 1000
TRUTH = ("truth_resnet", "truth_mobilenet")
_ANCHORS = ("resnet", "mobilenet", "efficientnet")
PROXIES: dict[str, tuple[tuple[str, int], ...]] = {  # title -> (training, steps) whose accuracies are averaged
    **{f"three anchors, {steps} steps": tuple((name, steps) for name in _ANCHORS) for steps in (300, 150, 100, 50)},
    **{f"resnet, {steps} steps": (("resnet", steps),) for steps in (300, 150, 50)},
    **{f"mobilenet, {steps} steps": (("mobilenet", steps),) for steps in (300, 100)},
    "efficientnet, 100 steps": (("efficientnet", 100),),
    **{f"deep narrow resnet, {steps} steps": (("deep", steps),) for steps in (150, 100, 50)},
    **{f"deep narrow resnet at rate 0.3, {steps} steps": (("steep", steps),) for steps in (150, 100, 50)},
    "deep narrow resnet and mobilenet, 100 steps": (("deep", 100), ("mobilenet", 100)),
}


class Setting(NamedTuple):
    """A training: its network, its hyperparameters, and the steps after which accuracy is measured."""

    anchor: Anchor
    training: Training
    steps: tuple[int, ...]


def main(arguments: Sequence[str]) -> None:
    """Trains what is not done yet, prints the table, writes the record and draws the figure."""
    made = settings()
    parser = runs.parser("fidelity", __doc__, layers=LAYERS, trainings=tuple(made))
    parser.add_argument("--source", required=True, help="folder or zip with train/CLASS and test/CLASS, 32 x 32 pixels")
    parser.add_argument("--record", type=pathlib.Path, help="JSON file of all results, which are not run again")
    options = parser.parse_args(arguments)
    options.workdir.mkdir(parents=True, exist_ok=True)
    config = evonorm_b_small.get_config()
    config.source.path = options.source
    images = {kind: builder.images(config, str(options.workdir), rerank=kind) for kind in (False, True)}

    def measure(layer: str, training: str, seed: int) -> dict:
        return curve(made[training], images[training in TRUTH], norm_act(layer), seed)

    study = runs.Runs(options.workdir, PATTERN)
    if options.record and options.record.exists():
        runs.unpack(runs.read(options.record), study)
    study.run(measure, options.layers, options.seeds, options.trainings)
    results = study.results(LAYERS, tuple(made))
    print(text(results))
    if options.record:
        runs.write(results, options.record)
    if options.figure:
        draw(results, options.figure)


def norm_act(layer: str) -> NormAct:
    """Returns what makes the layers of a name."""
    if layer in GRAPHS:
        return layer_from_graph(Graph.read(GRAPHS[layer]), groups=GROUPS)
    options: dict[str, Any] = {"groups": GROUPS} if layer.startswith(named.GROUPED) else {}
    return functools.partial(named.LAYERS[layer], **options)


def settings() -> dict[str, Setting]:
    """Returns all trainings by name: the anchors of the small searches, two deep and narrow ones, and the truth."""
    brief = functools.partial(Training, batch=64)
    made = {anchor.name: Setting(anchor, brief(steps=300), (50, 100, 150, 300)) for anchor in small_anchors()}
    for name, rate in (("deep", 0.1), ("steep", 0.3)):
        anchor = Anchor(name, functools.partial(_resnet, blocks=(3, 3, 3), width=1 / 16))
        made[name] = Setting(anchor, brief(steps=150, rate=rate), (50, 100, 150))
    longer = brief(steps=TRUTH_STEPS, schedule="cosine")
    deeper: tuple[Callable[[NormAct], tf.keras.Model], ...]
    deeper = (functools.partial(_resnet, blocks=(2, 2, 2), width=1 / 8), _mobilenet)
    for name, network in zip(TRUTH, deeper):
        made[name] = Setting(Anchor(name, network), longer, (TRUTH_STEPS,))
    return made


def curve(setting: Setting, images: Images, layer: NormAct, seed: int) -> dict[str, dict[str, float]]:
    """Trains a layer once.

    Returns:
      {"accuracy": {steps: accuracy}, "seconds": {steps: core-seconds that a training of so many steps takes, with its
      building, tracing and one measurement of accuracy}}. Accuracy is 0 once the loss was not finite.
    """
    start, measuring = time.process_time(), 0.0
    run = Run(setting.anchor, layer, images, setting.training, seed)
    accuracy, seconds, finite = {}, {}, True
    for steps in setting.steps:
        finite = finite and run.train(steps)
        trained = time.process_time()
        accuracy[str(steps)] = round(run.accuracy(), 4) if finite else 0.0
        seconds[str(steps)] = round(time.process_time() - start - measuring, 2)
        measuring += time.process_time() - trained
    return {"accuracy": accuracy, "seconds": seconds}


def scores(results: runs.Results, parts: Sequence[tuple[str, int]], seed: Optional[int] = None) -> dict[str, float]:
    """Returns layer -> mean accuracy, of the layers with all parts.

    Args:
      results: (layer, training) -> results of the seeds.
      parts: (training, steps) whose accuracies are averaged.
      seed: position of one seed; None for the mean of all.
    """
    found = {}
    for layer in LAYERS:
        cells = [[cell["accuracy"][str(steps)] for cell in results.get((layer, name), [])] for name, steps in parts]
        if all(len(cell) > (seed or 0) for cell in cells):
            found[layer] = float(np.mean([np.mean(cell) if seed is None else cell[seed] for cell in cells]))
    return found


def truth(results: runs.Results) -> dict[str, float]:
    """Returns layer -> mean accuracy of the long trainings."""
    return scores(results, [(name, TRUTH_STEPS) for name in TRUTH])


def agreement(proxy: Mapping[str, float], true: Mapping[str, float], best: Optional[int] = None) -> float:
    """Returns Kendall's tau-b of two rankings.

    Args:
      proxy, true: layer -> score; layers without both are left out.
      best: only the so many layers with the highest true score; None for all.
    """
    layers = sorted(set(proxy) & set(true), key=lambda layer: (-true[layer], layer))[:best]
    return float(stats.kendalltau([proxy[layer] for layer in layers], [true[layer] for layer in layers]).statistic)


def table(results: runs.Results) -> list[dict[str, Any]]:
    """Returns a row for each proxy with results: title, seconds per candidate, tau of all layers and of the best ten.

    Seconds are the median of the layers; tau is the mean of the seeds, since a search trains each candidate once.
    """
    true, rows = truth(results), []
    for title, parts in PROXIES.items():
        seeds = min((len(results.get((layer, name), [])) for layer in true for name, _ in parts), default=0)
        if len(true) < 2 or not seeds:
            continue
        by_seed = [scores(results, parts, seed) for seed in range(seeds)]
        seconds = [sum(results[layer, name][0]["seconds"][str(steps)] for name, steps in parts) for layer in true]
        rows.append(
            {
                "proxy": title,
                "seconds": float(np.median(seconds)),
                "tau": float(np.mean([agreement(one, true) for one in by_seed])),
                "tau of the best ten": float(np.mean([agreement(one, true, 10) for one in by_seed])),
            }
        )
    return rows


def text(results: runs.Results) -> str:
    """Returns two Markdown tables: the proxies with tau and cost, and the layers with their true accuracies."""
    rows = [
        [row["proxy"], f"{row['seconds']:.1f}", f"{row['tau']:.2f}", f"{row['tau of the best ten']:.2f}"]
        for row in table(results)
    ]
    one, other = (scores(results, [(name, TRUTH_STEPS)]) for name in TRUTH)
    if len(set(one) & set(other)) > 1:
        rows.append(
            ["one network of the truth for the other", "", *(f"{agreement(one, other, n):.2f}" for n in (None, 10))]
        )
    proxies = runs.markdown(["proxy", "core-seconds per layer", "tau", "tau of the best ten"], rows)
    true = sorted(truth(results).items(), key=lambda item: -item[1])
    lines = [
        [layer, *(f"{100 * part.get(layer, 0):.1f}" for part in (one, other)), f"{100 * mean:.1f}"]
        for layer, mean in true
    ]
    return proxies + "\n\n" + runs.markdown(["layer", *TRUTH, "mean"], lines)


def draw(results: runs.Results, path: str) -> None:
    """Draws Kendall's tau over core-seconds, a point for each proxy."""
    with runs.figure(path, [8], 4.5) as (axes,):
        for row in table(results):
            axes.plot(row["seconds"], row["tau"], "o", color="C0")
            axes.annotate(
                row["proxy"], (row["seconds"], row["tau"]), fontsize=7, xytext=(4, 2), textcoords="offset points"
            )
        axes.set(xscale="log", xlabel="core-seconds per layer", ylabel="Kendall's tau with the truth")
        axes.grid(alpha=0.3)


def _resnet(layer: NormAct, blocks: tuple[int, ...], width: float) -> tf.keras.Model:
    return backbones.preactivation_resnet(18, layer, blocks=blocks, width=width, stem="small")


def _mobilenet(layer: NormAct) -> tf.keras.Model:
    stages = [Stage(1, 16, 1, 1, 3), Stage(3, 24, 3, 2, 3), Stage(3, 32, 3, 2, 3, "4")]
    return inverted_residual_network(
        stages,
        norm_act=layer,
        input_size=(None, None, 3),
        stem="imagenet",
        stem_channels=16,
        head_channels=64,
        name="mobilenet_deeper",
    )
