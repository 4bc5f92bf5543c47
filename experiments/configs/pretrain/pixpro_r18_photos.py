"""PixPro, ResNet-18 at 96 pixels, on a folder or zip of photos: small enough for two processor cores.

Less than the authors' recipe in every size: views of 96 pixels (3 x 3 cells), heads of 1024 and 128 channels, 64 images
per step, 20 epochs. So few steps need longer ones: four times the authors' base rate per 256 images, 2 epochs of
warm-up.

python -m experiments.pretrain --config=experiments/configs/pretrain/pixpro_r18_photos.py \
    --config.source.path=photos.zip --workdir=workdir/photos

Variants: default: photos without labels, evaluated by the pretext loss; labelled: the source has folders train/CLASS
and val/CLASS, and a nearest-neighbour probe evaluates the frozen encoder; probe: the same where the
labelled images are apart from the photos, in
--config.evaluation.bank.path=labelled.zip; smoke.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant=""):
    if variant not in ("", "labelled", "probe", "smoke"):
        raise ValueError(f"the variant must be labelled, probe, smoke or none. Received {variant!r}.")
    config = ConfigDict()
    config.seed = 0
    config.deterministic = False
    config.source = {"path": "", "split": placeholder(str), "min_side": 96}
    config.views = {"size": (96, 96), "recipe": "BYOL", "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}
    config.views.update(vertical_flip=0.0, max_bad_share=0.01)
    config.norm_act = {"name": "bn_relu", "synchronized": True}
    config.backbone = {"name": "resnet", "depth": 18}
    config.projection = {"hidden": 1024, "features": 128}
    config.propagation = {"sharpness": 2.0, "value_layers": 1}
    config.model = {"level": "5", "distance": 0.7, "momentum": 0.99}
    config.schedule = {"batch": 64, "epochs": 20.0, "warmup_epochs": 2.0, "base_rate": 4.0}
    config.optimizer = {"name": "lars", "momentum": 0.9, "weight_decay": 1e-5}
    config.evaluation = {"kind": "pretext", "query_limit": 512, "queries": {}}
    config.pictures = 4
    config.trainer = {"steps_per_loop": 5, "checkpoint_epochs": 1.0, "evaluation_epochs": 5.0, "max_to_keep": 3}
    config.runtime = {
        "distribution_strategy": "mirrored",
        "mixed_precision_dtype": "float32",
        "enable_xla": False,
        "tf_data_service_address": placeholder(str),
        "num_gpus": -1,
    }
    if variant == "labelled":
        config.source.split = "train"
        config.evaluation = {"kind": "knn", "queries": {"split": "val"}}
    if variant == "probe":
        config.evaluation = {"kind": "knn", "bank": {"path": placeholder(str), "split": "train"}}
        config.evaluation.queries = {"path": placeholder(str), "split": "val"}
    if variant == "smoke":
        config.source = {"path": "scenes", "num_examples": 16, "size": (96, 96)}
        config.backbone.update(width=0.125, blocks=(1, 1, 1, 1))
        config.projection = {"hidden": 32, "features": 16}
        config.schedule.update({"batch": 4, "epochs": 1.0, "warmup_epochs": 0.25})
        config.trainer.update({"steps_per_loop": 2, "evaluation_epochs": 1.0})
        config.evaluation, config.pictures = {"kind": "knn", "queries": {"seed": 1}}, 1
    return config
