"""The paper's search of the B series on CIFAR-10, three architectures, 2,000 steps each, Pareto evolution.

Expected (EvoNorm paper): B0, B1 and B2 after 2 days on 5,000 workers; a model took 3 to 10 hours on two cores. Not run
here. Numbers that the reachable text does not give (window, newcomers, widths, first population, the stability test's
step) are marked in the classes.

python -m experiments.search --config=experiments/configs/search/evonorm_b_cifar10.py \
    --config.source.path=tfds:cifar10 \
    --workdir=workdir/search --workers=2 --config.study.url=postgresql://HOST/NAME

The same command on every machine; each needs its own --workdir. Variants: default; smoke.
"""

from ml_collections import ConfigDict

from experiments.configs.search import evonorm_b_small


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"the variant must be smoke or none. Received {variant!r}.")
    config = ConfigDict(convert_dict=True)
    config.seed = 0
    config.source = {"path": "tfds:cifar10", "split": "train"}
    config.test = {"split": "test"}
    config.images = {"size": 32, "held_out": 5000}
    config.anchors = {"kind": "paper"}
    config.training = {
        "steps": 2000,
        "batch": 128,
        "crop": 24,
        "rate": 0.1,
        "schedule": "constant",
        "weight_decay": 1e-4,
    }
    config.layer = {}
    config.precheck = True
    config.quality = {"steps": 100, "accuracy": 0.2}
    config.stability = {"steps": 100, "limit": 1e8}
    config.curve = None  # limits of the training loss, from experiments.benchmark curves
    config.space = {"nodes": 10}
    config.rules = {"method": "pareto", "initial": 500, "window": 2500, "tournament": 0.05, "newcomers": 0.5}
    config.checks = {"batch": False}
    config.study = {"candidates": 25000, "lease": 300.0, "url": ""}
    config.rerank = {"top": 10, "seeds": 3, "training": {"steps": 20000, "schedule": "cosine"}}
    config.restart_after = 20
    if variant == "smoke":
        small = evonorm_b_small.get_config("smoke")
        for name in ("source", "test", "images", "anchors", "training", "precheck", "quality", "stability", "rerank"):
            config[name] = small[name]
        config.study.candidates = small.study.candidates
    return config
