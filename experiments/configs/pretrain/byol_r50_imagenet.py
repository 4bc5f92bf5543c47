"""BYOL's term alone, ResNet-50, ImageNet: the instance-level baseline under PixPro's recipe.

Expected: no published number. It is the instance branch of the authors' code (their `--pixpro-ins-loss-weight`) without
the pixel task; BYOL itself (arXiv 2006.07733) trains longer, with a larger batch and a momentum of 0.996, and averages
before its heads.

python -m experiments.pretrain --config=experiments/configs/pretrain/byol_r50_imagenet.py --workdir=workdir/byol

Variants: 100 (default) and 400 epochs, smoke.
"""

from experiments.configs.pretrain import pixpro_r50_imagenet


def get_config(variant="100"):
    config = pixpro_r50_imagenet.get_config(variant)
    config.instance = {"name": "byol", **config.projection}
    config.model.update({"pixel_weight": 0.0, "instance_weight": 1.0})
    del config.projection, config.propagation
    return config
