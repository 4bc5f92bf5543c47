"""The paper's search of the S series.

As evonorm_b_cifar10.py, without live batch nodes, 5,000 steps with a cosine schedule.

Expected (EvoNorm paper): S0, S1 and S2 after 2 days on 5,000 workers. Not run here.

python -m experiments.search --config=experiments/configs/search/evonorm_s_cifar10.py \
    --config.source.path=tfds:cifar10 \
    --workdir=workdir/search --workers=2 --config.study.url=postgresql://HOST/NAME

Variants: default; smoke.
"""

from experiments.configs.search import evonorm_b_cifar10


def get_config(variant=""):
    config = evonorm_b_cifar10.get_config(variant)
    config.checks.batch = True
    config.training.schedule = "cosine"
    if variant != "smoke":
        config.training.steps = 5000
    return config
