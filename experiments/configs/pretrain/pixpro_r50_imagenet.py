"""PixPro, ResNet-50, ImageNet, exactly as its authors trained it (arXiv 2011.10043).

Their scripts are tools/pixpro_base_r50_{100,400}ep.sh.

Expected: Pascal VOC detection (R50-C4) 58.8 AP after 100 epochs, 60.2 after 400 (paper, tables 1 and 2); the authors
used eight GPUs of 32 GB, 128 images each, float16. Batch 1024, LARS, rate 1.0 * 1024 / 256 = 4.0, decay 1e-5, 5 epochs
of warm-up, cosine.

python -m experiments.pretrain --config=experiments/configs/pretrain/pixpro_r50_imagenet.py:100 --workdir=workdir/r50

Variants: 100 (default) and 400 epochs, smoke. Images: the TFDS data set, or
--config.source.path="/data/imagenet/train-*" (TFRecords).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant="100"):
    if variant not in ("100", "400", "smoke"):
        raise ValueError(f"the variant must be 100, 400 or smoke. Received {variant!r}.")
    config = ConfigDict()
    config.seed = 0
    config.deterministic = False
    config.source = {"path": "tfds:imagenet2012", "split": "train"}
    config.views = {"size": (224, 224), "recipe": "BYOL", "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}
    config.views.vertical_flip = 0.0
    config.norm_act = {"name": "bn_relu", "synchronized": True}
    config.backbone = {"name": "resnet", "depth": 50}
    config.projection = {"hidden": 4096, "features": 256}
    config.propagation = {"sharpness": 2.0, "value_layers": 1}
    config.model = {"level": "5", "distance": 0.7, "momentum": 0.99}
    config.schedule = {
        "batch": 1024,
        "epochs": 400.0 if variant == "400" else 100.0,
        "warmup_epochs": 5.0,
        "base_rate": 1.0,
    }
    config.optimizer = {"name": "lars", "momentum": 0.9, "weight_decay": 1e-5}
    config.evaluation = {"kind": "knn", "bank_limit": 50000, "queries": {"split": "validation"}}
    config.pictures = 4
    config.trainer = {"steps_per_loop": 50, "checkpoint_epochs": 1.0, "evaluation_epochs": 10.0, "max_to_keep": 3}
    config.runtime = {
        "distribution_strategy": "mirrored",
        "mixed_precision_dtype": "float16",
        "enable_xla": False,
        "tf_data_service_address": placeholder(str),
        "num_gpus": -1,
    }
    if variant == "smoke":
        config.source = {"path": "scenes", "num_examples": 16, "size": (64, 64)}
        config.evaluation.queries = {"seed": 1}
        config.views.size = (64, 64)
        config.backbone.update(width=0.125, blocks=(1, 1, 1, 1))
        config.projection = {"hidden": 32, "features": 16}
        config.schedule.update({"batch": 4, "epochs": 1.0, "warmup_epochs": 0.25})
        config.trainer.update({"steps_per_loop": 2, "evaluation_epochs": 1.0})
        config.runtime.mixed_precision_dtype, config.pictures = "float32", 1
    return config
