"""ImageNet, pre-activation ResNet-50 with EvoNorm, 90 epochs, as in the paper.

Batch 1024, 0.1 per 256 images, tenfold down at epochs 30, 60 and 80. Expected top-1 (paper, table 2): BN-ReLU 76.1,
BN-Swish 77.0, EvoNorm-B0 77.8, B1 77.5, B2 77.8; S0 77.4, S1 77.5, S2 76.9 (table 3, 128 images per worker). Not
trained here. The source is a pattern of TFRecords with Model Garden's ImageNet keys (train* and validation*),
tfds:imagenet2012, or a folder. Any layer: --config.norm_act.name=evonorm_s0 (evonorm_b1, bn_relu, bn_swish, gn_relu,
frn, ...; default: the backbone's own).

python -m experiments.classify --config=experiments/configs/classify/evonorm_r50_imagenet.py \
    --config.source.path='train*' --config.source.num_classes=1001 \
    --config.held_out.path='validation*' --workdir=workdir/evonorm_r50_imagenet

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
    config.source = {"path": "tfds:imagenet2012", "split": "train", "num_classes": placeholder(int)}
    config.held_out = {"path": "tfds:imagenet2012", "split": "validation"}
    config.views = {
        "size": (224, 224),
        "scale": (0.08, 1.0),
        "flip": 0.5,
        "randaugment_layers": 0,
        "randaugment_magnitude": 10.0,
    }
    config.evaluation = {"margin": 256 / 224}
    config.norm_act = {"name": "evonorm_b0"}
    config.backbone = {"name": "preactivation_resnet", "depth": 50}
    config.head = {"dropout": 0.0, "weight_decay": 1e-4}
    config.label_smoothing = 0.0
    config.schedule = {"batch": 1024, "epochs": 90.0, "base_rate": 0.1, "warmup_epochs": 5.0}
    config.rate = {"kind": "step", "epochs": (30, 60, 80), "factor": 0.1}
    config.optimizer = {"name": "sgd", "momentum": 0.9, "nesterov": True}
    config.average = None
    config.trainer = {"steps_per_loop": 500, "checkpoint_epochs": 1.0, "evaluation_epochs": 5.0, "max_to_keep": 3}
    config.runtime = {"distribution_strategy": "mirrored", "mixed_precision_dtype": "bfloat16", "num_gpus": -1}
    if variant == "smoke":
        config.source = {"path": "scenes", "num_examples": 8, "size": (64, 64)}
        config.held_out = {"path": "scenes", "seed": 1}
        config.views.size = (64, 64)
        config.backbone.update(depth=18, width=0.125, blocks=(1, 1, 1, 1))
        config.schedule.update(batch=4, epochs=1.0, warmup_epochs=0.5)
        config.trainer.update(steps_per_loop=1, evaluation_epochs=1.0)
    return config
