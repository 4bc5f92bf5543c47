"""COCO, Mask R-CNN on SpineNet-96, from scratch.

Expected: the TPU repository's configuration states box 47.18 / mask 41.53 AP with batch normalization. Its settings:
1024 pixels, scales 0.5 to 2.0, 256 images, 162,050 steps, rate 0.28, drops at 148,160 and 157,420, warm-up of 2,000,
decay 4e-5, normalization momentum 0.99. EvoNorm's row for this network could not be read: put it in with
--config.norm_act.name=evonorm_b0 --config.norm_act.reach=all.

python -m experiments.transfer --config=experiments/configs/transfer/coco_mask_rcnn_spinenet96.py --workdir=W
"""

from experiments.configs.transfer import coco_mask_rcnn_r50_fpn_1x
from experiments.configs.transfer.smoke import shrink


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"the variant must be smoke or none. Received {variant!r}.")
    config = coco_mask_rcnn_r50_fpn_1x.get_config()
    config.train_data.parser.update(aug_scale_min=0.5, aug_scale_max=2.0)
    config.norm_act = {
        "name": "batch_norm",
        "reach": "backbone",
        "synchronized": True,
        "momentum": 0.99,
        "epsilon": 1e-3,
    }
    config.backbone = {"name": "spinenet", "variant": "96", "min_level": 3, "max_level": 7}
    del config.model.decoder
    config.model.update(input_size=[1024, 1024, 3], min_level=3, max_level=7, decoder={"type": "identity"})
    config.model.anchor.anchor_size = 3.0
    config.model.norm_activation.update(norm_momentum=0.99, norm_epsilon=1e-3)
    config.losses.l2_weight_decay = 4e-5
    config.precise_norm_steps = 0
    config.schedule.update(steps=162050, batch=256, rate=0.28, drops=(148160, 157420), warmup_steps=2000)
    return shrink(config) if variant == "smoke" else config
