"""CIFAR-10, a pre-activation ResNet of 20 layers: small enough for two processor cores, for comparing normalizations.

The source is a folder or zip with train/CLASS and test/CLASS; or --config.source.path=tfds:cifar10. With BatchNorm and
ReLU such a network reaches about 92 % on all of CIFAR-10 (He et al. 2016). Any layer: --config.norm_act.name=evonorm_s0
(bn_relu, gn_relu, frn, ...).

python -m experiments.classify --config=experiments/configs/classify/evonorm_r20_cifar10.py \
    --config.source.path=cifar10.zip --workdir=workdir/cifar

Variants: default; smoke.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"the variant must be smoke or none. Received {variant!r}.")
    config = ConfigDict()
    config.seed = 0
    config.deterministic = False
    config.source = {"path": "", "split": "train"}
    config.held_out = {"split": "test"}
    config.max_bad_share = 0.01
    config.views = {"size": (32, 32), "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.5, "shift": 4}
    config.evaluation = {"margin": 1.0, "size": placeholder(object), "batch": placeholder(int)}
    config.norm_act = {"name": "evonorm_b0"}
    config.backbone = {
        "name": "preactivation_resnet",
        "depth": 18,
        "blocks": (3, 3, 3),
        "width": 0.25,
        "stem": "small",
    }
    config.head = {"dropout": 0.0, "weight_decay": 1e-4}
    config.label_smoothing = 0.0
    config.schedule = {"batch": 128, "epochs": 200.0, "base_rate": 0.2, "warmup_epochs": 1.0}
    config.rate = {"kind": "cosine"}
    config.optimizer = {"name": "sgd", "momentum": 0.9, "nesterov": True}
    config.average = None
    config.trainer = {"steps_per_loop": 50, "checkpoint_epochs": 5.0, "evaluation_epochs": 5.0, "max_to_keep": 2}
    config.runtime = {"distribution_strategy": "mirrored", "mixed_precision_dtype": "float32", "num_gpus": -1}
    if variant == "smoke":
        config.source = {"path": "scenes", "num_examples": 16, "size": (32, 32)}
        config.held_out = {"seed": 1}
        config.backbone.update(blocks=(1, 1, 1), width=0.125)
        config.schedule.update(batch=4, epochs=1.0, warmup_epochs=0.25)
        config.trainer.update(steps_per_loop=2, evaluation_epochs=1.0)
    return config
