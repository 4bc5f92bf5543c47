"""A search of S-series layers for two cores.

As evonorm_b_small.py, without live batch nodes, and with a cosine schedule.

Expected: nothing is published at this size.

python -m experiments.search --config=experiments/configs/search/evonorm_s_small.py --config.source.path=cifar10.zip \
    --workdir=workdir/search --workers=2

Variants: default; random (search without parents); smoke.
"""

from experiments.configs.search import evonorm_b_small


def get_config(variant=""):
    config = evonorm_b_small.get_config(variant)
    config.checks.batch = True
    config.training.schedule = "cosine"
    return config
