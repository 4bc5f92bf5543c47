"""PixPro on a feature pyramid, ResNet-50, ImageNet: levels P3 to P6 (arXiv 2011.10043, section 3.4).

Expected: up to 1.2 mAP more on COCO where head networks are pre-trained too (notes on the paper, for FCOS); no code was
released. The pyramid has levels 2 to 6, as that of Mask R-CNN, which loads it; level 2 takes no part in the loss.

python -m experiments.pretrain --config=experiments/configs/pretrain/pixpro_fpn_r50_imagenet.py --workdir=workdir/fpn

`workdir/fpn/backbone` holds backbone and decoder; `coco_mask_rcnn_r50_fpn_1x.py:aligned` starts from both. Ours,
because the paper's is unknown: heads shared over levels, 1024 channels wide. Variants: 100 (default) and 400 epochs,
smoke.
"""

from experiments.configs.pretrain import pixpro_r50_imagenet


def get_config(variant="100"):
    config = pixpro_r50_imagenet.get_config(variant)
    config.pyramid = {"min_level": 2, "max_level": 6, "filters": 256}
    levels = ("3", "4", "5", "6")
    config.model = {**config.model, "level": levels, "block": 196}  # 28 x 28 cells of level 3, a quarter at a time
    config.propagation.block = 196
    config.projection.hidden = 1024
    config.evaluation = {"kind": "pretext", "query_limit": 8192, "queries": {"split": "validation"}}
    if variant == "smoke":
        config.pyramid.filters, config.projection.hidden = 16, 32
        config.evaluation.queries = {"seed": 1}
    return config
