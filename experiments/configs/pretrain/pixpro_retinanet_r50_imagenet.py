"""PixPro on the towers of a dense detection head, ResNet-50 with FPN, ImageNet (arXiv 2011.10043, section 3.4).

Expected: up to 1.2 mAP more on COCO (notes on the paper, for FCOS, whose towers end in other normalizations); no code
was released. Class and box tower of RetinaNet's head, four convolutions each, shared over levels; the task reads both
on levels 3 to 6.

python -m experiments.pretrain --config=experiments/configs/pretrain/pixpro_retinanet_r50_imagenet.py \
    --workdir=workdir/retinanet

`workdir/retinanet/backbone` holds backbone, decoder and head; `coco_retinanet_r50_fpn_1x.py:aligned` starts from all
three. Ours, because the paper's is unknown: heads of the task shared over levels and towers, 1024 channels wide.
Variants: 100 (default) and 400 epochs, smoke.
"""

from experiments.configs.pretrain import pixpro_fpn_r50_imagenet


def get_config(variant="100"):
    config = pixpro_fpn_r50_imagenet.get_config(variant)
    config.pyramid.update({"min_level": 3, "max_level": 7, "towers": 1 if variant == "smoke" else 4})
    config.model.level = tuple(f"{tower}/{level}" for tower in ("class", "box") for level in (3, 4, 5, 6))
    return config
