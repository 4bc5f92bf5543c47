"""Settings of PixPro side by side: what helps or hinders the pixel task where images and steps are few?

    python -m experiments.benchmark settings --source=caltech101.zip --records=records/camvid \\
        --workdir=workdir/settings --record=docs/settings.json --epochs=6 --width=0.25

Each row is `compare_r18_photos:pixpro` with the changes of `SETTINGS`, pre-trained on the same photos. Its encoder is
judged frozen: nearest neighbours on pooled features, the dense linear probe (`camvid_fcn_r18:probe`), and two measures
of collapse. Each run is stored when it ends and is not repeated; `--settings` and `--seeds` divide the work among
processes.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.configs.classify import linear_r18_photos
from experiments.studies import pretext_tasks, runs
from tf_pixpro.pretext.probe import effective_rank, feature_std, nearest_neighbour_accuracy

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> (title, changes of the config)
    "scratch": ("initial weights", {}),
    "default": ("as `compare_r18_photos:pixpro`", {}),
    "momentum_0.95": ("momentum from 0.95", {"model.momentum": 0.95}),
    "momentum_0.9": ("momentum from 0.9", {"model.momentum": 0.9}),
    "momentum_0.5": ("momentum from 0.5", {"model.momentum": 0.5}),
    "rate_1": ("a quarter of the rate", {"schedule.base_rate": 1.0}),
    "rate_8": ("twice the rate", {"schedule.base_rate": 8.0}),
    "warmup_0.5": ("half an epoch of warm-up", {"schedule.warmup_epochs": 0.5}),
    "sgd": (
        "SGD at 0.4 per 256 images, decay 1e-4",
        {"optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4}, "schedule.base_rate": 0.4},
    ),
    "adamw": (
        "AdamW at 4e-3 per 256 images, decay 0.05",
        {"optimizer": {"name": "adamw", "weight_decay": 0.05}, "schedule.base_rate": 4e-3},
    ),
    "distance_0.5": ("distance 0.5", {"model.distance": 0.5}),
    "distance_1.0": ("distance 1.0", {"model.distance": 1.0}),
    "stride_16": ("output stride 16: 6 x 6 cells", {"backbone.output_stride": 16}),
    "sharpness_1": ("sharpness 1", {"propagation.sharpness": 1.0}),
    "scale_0.2": ("views of at least 0.2 of the image", {"views.scale": (0.2, 1.0)}),
    "evonorm_b0": ("EvoNorm-B0 in the encoder", {"norm_act": {"name": "evonorm_b0"}}),
    "evonorm_s0": ("EvoNorm-S0 in the encoder", {"norm_act": {"name": "evonorm_s0"}}),
    "gn_relu": ("GroupNorm + ReLU in the encoder", {"norm_act": {"name": "gn_relu"}}),
}
MEASURES = ("frozen", "probe")
PATTERN = "{row}-{seed}/{column}.json"


def main(arguments: Sequence[str]) -> None:
    """Pre-trains and judges what is not done yet, prints the table and writes the record."""
    parser = runs.parser("settings", __doc__, settings=tuple(SETTINGS), measures=MEASURES)
    parser.add_argument("--source", required=True, help="folder or zip with train/CLASS and val/CLASS")
    parser.add_argument("--records", help="folder of CamVid's records, train-* and val-*, for the dense probe")
    parser.add_argument("--record", type=pathlib.Path, help="JSON file of all results, which are not run again")
    parser.add_argument("--epochs", type=float, default=6.0, help="of pre-training")
    parser.add_argument("--width", type=float, default=0.25, help="multiplier of the channels of a ResNet-18")
    parser.add_argument("--judging", type=float, default=0.5, help="multiplier of the steps of the dense probe")
    parser.add_argument("--smoke", action="store_true", help="tiny runs")
    options = parser.parse_args(arguments)
    if "probe" in options.measures and not (options.records or options.smoke):
        parser.error("--records is needed for the dense probe, or --measures frozen")
    study = runs.Runs(options.workdir, PATTERN)
    if options.record and options.record.exists():
        runs.unpack(runs.read(options.record), study)
    study.run(functools.partial(judge, options), options.settings, options.seeds, options.measures)
    results = study.results(SETTINGS, MEASURES)
    print(text(results))
    if options.record:
        runs.write(results, options.record)


def judge(options: argparse.Namespace, name: str, measure: str, seed: int) -> Any:
    """Returns one measure of a setting's encoder, which is pre-trained first if it is not there.

    Returns:
      Of 'frozen' {"knn": accuracy, "std": `feature_std`, "rank": `effective_rank`} of pooled features of the held-out
      images, of 'probe' the mean IoU; shares in [0, 1].
    """
    folder, changes = options.workdir / f"{name}-{seed}", SETTINGS[name][1]
    init = ""
    if name != "scratch":
        length = {} if options.smoke else {"schedule.epochs": options.epochs}
        init = pretext_tasks.pretrained(folder / "pretrain", "pixpro", seed, options, {**length, **changes})
    shared = {key: value for key, value in changes.items() if key == "norm_act"}
    if measure == "frozen":
        config = linear_r18_photos.get_config("smoke" if options.smoke else "")
        if not options.smoke:
            config.source.path, config.backbone.width = options.source, options.width
        config.init = init
        bank, bank_labels, queries, labels = pretext_tasks.features(pretext_tasks.changed(config, shared), seed)
        accuracy = nearest_neighbour_accuracy(bank, bank_labels, queries, labels)
        return {"knn": accuracy, "std": feature_std(queries), "rank": effective_rank(queries)}
    score = pretext_tasks.evaluated(folder / measure, measure, init, seed, options, shared)
    pretext_tasks.tidy(folder / measure, "*.index", "*.data-*")
    return score


def text(results: runs.Results) -> str:
    """Returns a Markdown table: a row for each setting, its scores in per cent and its measures of collapse."""
    rows = []
    for name, (title, _) in SETTINGS.items():
        frozen = results.get((name, "frozen"), [])
        columns = {key: [cell[key] for cell in frozen] for key in ("knn", "std", "rank")}
        rows.append([
            title,
            runs.mean_and_deviation(runs.percent(columns["knn"])),
            runs.mean_and_deviation(runs.percent(results.get((name, "probe"), []))),
            runs.mean_and_deviation(columns["std"], 2),
            runs.mean_and_deviation(columns["rank"]),
        ])  # fmt: skip
    head = ["setting", "nearest neighbours, %", "dense probe, mIoU %", "deviation of features", "effective rank"]
    return runs.markdown(head, [row for row in rows if row[1:] != ["-"] * 4])
