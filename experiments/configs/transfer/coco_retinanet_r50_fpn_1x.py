"""COCO, RetinaNet on ResNet-50 with FPN, 1x: the head network that encoders are aligned with.

detectron2's schedule for it: 16 images, rate 0.01, 90,000 steps. Supervised it gives box AP 37.4 there (its model zoo).
Differences: those of `coco_mask_rcnn_r50_fpn_1x`, and Model Garden's head, which has a normalization, huber loss of
width 0.1 and box weight 50.

python -m experiments.transfer --config=experiments/configs/transfer/coco_retinanet_r50_fpn_1x.py \
    --config.init=workdir/pixpro/backbone --workdir=W

Variants: default; aligned: pyramid and head too come from --config.init, a run of `pixpro_retinanet_r50_imagenet`;
smoke.
"""

from experiments.configs.transfer import coco_mask_rcnn_r50_fpn_1x
from experiments.configs.transfer.smoke import shrink


def get_config(variant=""):
    if variant not in ("", "aligned", "smoke"):
        raise ValueError(f"the variant must be aligned, smoke or none. Received {variant!r}.")
    config = coco_mask_rcnn_r50_fpn_1x.get_config()
    del config.model.include_mask
    config.model.update(kind="retinanet", input_size=[1152, 1152, 3], min_level=3, max_level=7)
    config.model.anchor.update(num_scales=3, anchor_size=4.0)
    config.model.head = {"num_convs": 4, "num_filters": 256}
    config.losses.update(focal_loss_alpha=0.25, focal_loss_gamma=2.0)
    config.schedule.rate = 0.01
    if variant == "aligned":
        config.init_modules = ("backbone", "decoder", "head")
    return shrink(config) if variant == "smoke" else config
