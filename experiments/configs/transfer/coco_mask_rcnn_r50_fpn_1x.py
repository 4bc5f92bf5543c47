"""COCO, Mask R-CNN on ResNet-50 with FPN, 1x: PixPro's protocol.

Expected (the authors' README): box / mask AP 40.8 / 36.8 from 100 epochs, 41.4 / 37.4 from 400 with instance loss, 39.7
/ 35.9 supervised.

detectron2's settings: 16 images, rate 0.02, 90,000 steps, drops at 60,000 and 80,000, warm-up of 1,000 from 1/1000,
decay 1e-4, all layers trained, synchronized batch normalization everywhere. Differences, Model Garden's: images lie in
a square frame of 1088 (a 4:3 photo at short side 800, in training 0.8 to 1.0 of it), smooth L1 with its widths, a
normalization in region proposals, 91 class numbers with gaps.

python -m experiments.prepare --format=coco --images=coco/train2017 \
    --annotations=coco/annotations/instances_train2017.json --split=train \\
    --shards=64 --output=records/coco   (and val)
python -m experiments.transfer --config=experiments/configs/transfer/coco_mask_rcnn_r50_fpn_1x.py \
    --config.init=workdir/pixpro/backbone --workdir=W

Variants: default; aligned: the pyramid too comes from --config.init, a run of `pixpro_fpn_r50_imagenet`; smoke.
"""

from ml_collections import ConfigDict

from experiments.configs.transfer.smoke import shrink


def get_config(variant=""):
    if variant not in ("", "aligned", "smoke"):
        raise ValueError(f"the variant must be aligned, smoke or none. Received {variant!r}.")
    config = ConfigDict()
    config.seed, config.deterministic = 0, False
    config.train_data = {"input_path": "records/coco/train-*.tfrecord", "shuffle_buffer_size": 2000}
    config.train_data.parser = {"aug_rand_hflip": True, "aug_scale_min": 0.8, "aug_scale_max": 1.0}
    config.validation_data = {"input_path": "records/coco/val-*.tfrecord", "parser": {}}
    config.scores = {"kind": "coco", "annotation_file": "records/coco/val_annotations.json"}
    config.norm_act = {"name": "batch_norm", "reach": "backbone", "synchronized": True}
    config.backbone = {"name": "resnet", "depth": 50}
    config.model = {
        "kind": "mask_rcnn",
        "num_classes": 91,
        "input_size": [1088, 1088, 3],
        "min_level": 2,
        "max_level": 6,
        "include_mask": True,
        "anchor": {"num_scales": 1, "aspect_ratios": [0.5, 1.0, 2.0], "anchor_size": 8.0},
        "decoder": {"type": "fpn", "fpn": {"num_filters": 256}},
        "norm_activation": {"use_sync_bn": True, "norm_momentum": 0.9, "norm_epsilon": 1e-5},
    }
    config.losses = {"l2_weight_decay": 1e-4}
    config.init = ""
    if variant == "aligned":
        config.init_modules = ("backbone", "decoder")
    config.precise_norm_steps = 200
    config.schedule = {"steps": 90000, "batch": 16, "rate": 0.02, "drops": (60000, 80000), "warmup_steps": 1000}
    config.optimizer = {"name": "sgd", "momentum": 0.9}
    config.trainer = {
        "steps_per_loop": 100,
        "checkpoint_interval": 5000,
        "validation_interval": 15000,
        "max_to_keep": 2,
    }
    config.runtime = {"distribution_strategy": "mirrored", "mixed_precision_dtype": "float32", "num_gpus": -1}
    return shrink(config) if variant == "smoke" else config
