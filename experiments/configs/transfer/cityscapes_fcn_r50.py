"""Cityscapes, FCN on ResNet-50 at output stride 16: PixPro's semantic segmentation protocol.

Expected (abstract): 77.2 mIoU from 400 epochs of PixPro, 76.2 the best method before. MoCo's set-up: two 3x3
convolutions of 256 with dilation 6 on level 5 (stride 1, dilation 2), scales 0.5 to 2.0, crop 769, 90,000 steps of 16,
rate 0.01, drops at 63,000 and 81,000, decay 1e-4, sliding window of 769 with stride 513. Differences: crops of 768 that
are cut before they are scaled (Model Garden's order), no aligned corners, windows of 768 with stride 512.

python -m experiments.prepare --format=cityscapes --root=cityscapes --split=train --shards=32 \
    --output=records/cityscapes   (and val)
python -m experiments.transfer --config=experiments/configs/transfer/cityscapes_fcn_r50.py \
    --config.init=workdir/pixpro/backbone --workdir=W
"""

from ml_collections import ConfigDict

from experiments.configs.transfer.smoke import shrink


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"the variant must be smoke or none. Received {variant!r}.")
    config = ConfigDict()
    config.seed, config.deterministic = 0, False
    config.train_data = {"input_path": "records/cityscapes/train-*.tfrecord", "shuffle_buffer_size": 500}
    config.train_data.update({"output_size": [1024, 2048], "crop_size": [768, 768], "aug_rand_hflip": True})
    config.train_data.update({"aug_scale_min": 0.5, "aug_scale_max": 2.0})
    config.validation_data = {"input_path": "records/cityscapes/val-*.tfrecord", "output_size": [1024, 2048]}
    config.validation_data.update({"resize_eval_groundtruth": False, "groundtruth_padded_size": [1024, 2048]})
    config.window = {"size": 768, "stride": 512}
    config.norm_act = {"name": "batch_norm", "reach": "backbone", "synchronized": True}
    config.backbone = {"name": "resnet", "depth": 50, "output_stride": 16}
    config.model = {
        "kind": "segmenter",
        "num_classes": 19,
        "input_size": [768, 768, 3],
        "fcn": {"filters": 256, "convs": 2, "dilation": 6},
        "head": {"level": 5, "num_convs": 0},
        "norm_activation": {"use_sync_bn": True, "norm_momentum": 0.9, "norm_epsilon": 1e-5},
    }
    config.losses = {"l2_weight_decay": 1e-4, "ignore_label": 255}
    config.init = ""
    config.schedule = {"steps": 90000, "batch": 16, "rate": 0.01, "drops": (63000, 81000), "warmup_steps": 0}
    config.optimizer = {"name": "sgd", "momentum": 0.9}
    config.trainer = {
        "steps_per_loop": 100,
        "checkpoint_interval": 5000,
        "validation_interval": 15000,
        "max_to_keep": 2,
    }
    config.runtime = {"distribution_strategy": "mirrored", "mixed_precision_dtype": "float32", "num_gpus": -1}
    if variant == "smoke":
        config.window = {"size": 96, "stride": 64}
        config = shrink(config)
    return config
