"""CamVid, 11 classes, FCN on ResNet-18 at output stride 16: the Cityscapes protocol in small, for two processor cores.

Two 3x3 convolutions of 256 with dilation 6 on level 5 (stride 1, dilation 2), as in `cityscapes_fcn_r50`. Images of
480x360 are brought to 256x192 and scored at 480x360; README says what it gave.

python -m experiments.prepare --format=camvid --root=camvid --split=train --output=records/camvid   (and --split=val)
python -m experiments.transfer --config=experiments/configs/transfer/camvid_fcn_r18.py --workdir=workdir/camvid

Variants: default; smoke; probe, probe-smoke: the dense linear probe, one 1x1 convolution on the standardized level 5 of
a frozen encoder in inference mode.
"""

from ml_collections import ConfigDict

from experiments.configs.transfer.smoke import shrink


def get_config(variant=""):
    if variant not in ("", "smoke", "probe", "probe-smoke"):
        raise ValueError(f"the variant must be smoke, probe, probe-smoke or none. Received {variant!r}.")
    config = ConfigDict()
    config.seed, config.deterministic = 0, False
    size = [192, 256]
    records = {"output_size": size, "shuffle_buffer_size": 64, "preserve_aspect_ratio": True}
    config.train_data = {**records, "input_path": "records/camvid/train-*.tfrecord", "aug_rand_hflip": True}
    config.train_data.update({"aug_scale_min": 0.75, "aug_scale_max": 1.5})
    config.validation_data = {**records, "input_path": "records/camvid/val-*.tfrecord"}
    config.validation_data.update({"resize_eval_groundtruth": False, "groundtruth_padded_size": [360, 480]})
    config.norm_act = {"name": "batch_norm", "reach": "backbone", "synchronized": True}
    config.backbone = {"name": "resnet", "depth": 18, "output_stride": 16}
    config.model = {
        "kind": "segmenter",
        "num_classes": 11,
        "input_size": [*size, 3],
        "fcn": {"filters": 256, "convs": 2, "dilation": 6},
        "head": {"level": 5, "num_convs": 0},
        "norm_activation": {"use_sync_bn": True, "norm_momentum": 0.9, "norm_epsilon": 1e-5},
    }
    config.losses = {"l2_weight_decay": 1e-4, "ignore_label": 255}
    config.init = ""
    config.schedule = {"steps": 600, "batch": 4, "rate": 0.02, "drops": None, "warmup_steps": 30}
    config.optimizer = {"name": "sgd", "momentum": 0.9}
    config.trainer = {"steps_per_loop": 10, "checkpoint_interval": 100, "validation_interval": 200, "max_to_keep": 2}
    config.runtime = {"distribution_strategy": "mirrored", "mixed_precision_dtype": "float32", "num_gpus": -1}
    if variant.startswith("probe"):
        del config.model.fcn
        config.freeze = {"mode": "inference", "standardize": True}
        config.losses.l2_weight_decay = 0.0
        config.schedule.update(steps=300, rate=0.5, warmup_steps=15)
        config.trainer.update(checkpoint_interval=300, validation_interval=300, max_to_keep=1)
    return shrink(config) if variant.endswith("smoke") else config
