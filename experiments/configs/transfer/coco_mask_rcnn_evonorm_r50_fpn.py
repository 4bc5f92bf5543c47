"""COCO, Mask R-CNN with EvoNorm in encoder, pyramid and heads.

Expected (EvoNorm, arXiv v1, Table 4, R-50-FPN; box / mask AP): B0 44.0 / 39.5, S0 43.6 / 39.4, BN-ReLU 42.1 / 37.8,
GN-ReLU 42.7 / 38.4; 46.38 M parameters. The encoder is the pre-activation ResNet-50 that EvoNorm's authors publish
their layers in. Training settings are not in the part of the paper that could be read; 1024 pixels, 64 images, 135,000
steps, rate 0.1 and decay 4e-5 from scratch are UNCONFIRMED.

python -m experiments.transfer --config=experiments/configs/transfer/coco_mask_rcnn_evonorm_r50_fpn.py:s0 --workdir=W

Variants: b0 (as default), s0, bn (BN-ReLU with the same settings), smoke.
"""

from experiments.configs.transfer import coco_mask_rcnn_r50_fpn_1x
from experiments.configs.transfer.smoke import shrink


def get_config(variant=""):
    if variant not in ("", "b0", "s0", "bn", "smoke"):
        raise ValueError(f"the variant must be b0, s0, bn, smoke or none. Received {variant!r}.")
    config = coco_mask_rcnn_r50_fpn_1x.get_config()
    config.train_data.parser.update(aug_scale_min=0.8, aug_scale_max=1.25)
    name = {"s0": "evonorm_s0", "bn": "batch_norm"}.get(variant, "evonorm_b0")
    config.norm_act = {"name": name, "reach": "backbone" if variant == "bn" else "all"}
    if variant == "s0":
        config.norm_act.groups = "auto"
    if variant == "bn":
        config.norm_act.synchronized = True
    config.backbone = {"name": "preactivation_resnet", "depth": 50}
    config.model.input_size = [1024, 1024, 3]
    config.losses.l2_weight_decay = 4e-5
    config.precise_norm_steps = 0
    config.schedule.update(steps=135000, batch=64, rate=0.1, drops=(120000, 125000))
    return shrink(config) if variant == "smoke" else config
