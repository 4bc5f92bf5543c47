"""BCCD, three kinds of blood cells, RetinaNet on ResNet-18 with FPN: small enough for two processor cores.

100 images of 640x480 (shared as Pascal VOC folders), brought to 256x192; levels 3 to 5, because no cell is larger than
110 pixels there. Expected: val AP50 of at least 0.75 from scratch; see README for what it gave.

python -m experiments.prepare --format=voc --names=RBC,WBC,Platelets --root=BCCD --split=train --output=records/bccd
(and --split=val)
python -m experiments.transfer --config=experiments/configs/transfer/bccd_retinanet_r18.py --workdir=workdir/bccd
"""

from ml_collections import ConfigDict

from experiments.configs.transfer.smoke import shrink


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"the variant must be smoke or none. Received {variant!r}.")
    config = ConfigDict()
    config.seed, config.deterministic = 0, False
    config.train_data = {"input_path": "records/bccd/train-*.tfrecord", "shuffle_buffer_size": 64}
    config.train_data.parser = {"aug_rand_hflip": True, "aug_scale_min": 0.8, "aug_scale_max": 1.25}
    config.validation_data = {"input_path": "records/bccd/val-*.tfrecord"}
    config.scores = {"kind": "coco", "annotation_file": "records/bccd/val_annotations.json"}
    config.norm_act = {"name": "batch_norm", "reach": "backbone", "synchronized": True}
    config.backbone = {"name": "resnet", "depth": 18}
    config.model = {
        "kind": "retinanet",
        "num_classes": 4,
        "input_size": [192, 256, 3],
        "min_level": 3,
        "max_level": 5,
        "anchor": {"num_scales": 3, "aspect_ratios": [0.5, 1.0, 2.0], "anchor_size": 2.0},
        "decoder": {"type": "fpn", "fpn": {"num_filters": 128}},
        "head": {"num_convs": 2, "num_filters": 128},
        "norm_activation": {"use_sync_bn": True, "norm_momentum": 0.9, "norm_epsilon": 1e-5},
    }
    config.losses = {"l2_weight_decay": 1e-4}
    config.init = ""
    config.schedule = {"steps": 600, "batch": 4, "rate": 0.01, "drops": (500,), "warmup_steps": 100}
    config.optimizer = {"name": "sgd", "momentum": 0.9, "clipnorm": 10.0}
    config.trainer = {"steps_per_loop": 10, "checkpoint_interval": 100, "validation_interval": 300, "max_to_keep": 2}
    config.runtime = {"distribution_strategy": "mirrored", "mixed_precision_dtype": "float32", "num_gpus": -1}
    return shrink(config) if variant == "smoke" else config
