"""ImageNet, MobileNetV2 with EvoNorm, 350 epochs.

The recipe is that of the MnasNet code on which the paper's rests: 0.016 per 256 images, 0.97 every 2.4 epochs. Expected
top-1 (paper, table 2): BN-ReLU 73.1, EvoNorm-B0 75.1, B1 74.5, B2 74.7; S0 74.0 (table 3). The paper's batch is 4096 on
32 workers. Not trained here. The source is a pattern of TFRecords with Model Garden's ImageNet keys (train* and
validation*), tfds:imagenet2012, or a folder. Any layer: --config.norm_act.name=evonorm_s0 (evonorm_b1, bn_relu,
bn_swish, gn_relu, frn, ...; default: the backbone's own).

python -m experiments.classify --config=experiments/configs/classify/evonorm_mobilenetv2_imagenet.py \
    --config.source.path='train*' --config.source.num_classes=1001 \
    --config.held_out.path='validation*' --workdir=workdir/evonorm_mobilenetv2_imagenet

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
    config.backbone = {"name": "mobilenetv2"}
    config.head = {"dropout": 0.2, "weight_decay": 1e-5}
    config.label_smoothing = 0.1
    config.schedule = {"batch": 4096, "epochs": 350.0, "base_rate": 0.016, "warmup_epochs": 5.0}
    config.rate = {"kind": "exponential", "epochs": 2.4, "factor": 0.97}
    config.optimizer = {"name": "rmsprop", "rho": 0.9, "momentum": 0.9, "epsilon": 1e-3}
    config.average = {"average_decay": 0.9999, "trainable_weights_only": False}
    config.trainer = {"steps_per_loop": 500, "checkpoint_epochs": 1.0, "evaluation_epochs": 5.0, "max_to_keep": 3}
    config.runtime = {"distribution_strategy": "mirrored", "mixed_precision_dtype": "bfloat16", "num_gpus": -1}
    if variant == "smoke":
        config.source = {"path": "scenes", "num_examples": 8, "size": (64, 64)}
        config.held_out = {"path": "scenes", "seed": 1}
        config.views.size = (64, 64)
        config.backbone.update(width=0.25)
        config.schedule.update(batch=4, epochs=1.0, warmup_epochs=0.5)
        config.trainer.update(steps_per_loop=1, evaluation_epochs=1.0)
    return config
