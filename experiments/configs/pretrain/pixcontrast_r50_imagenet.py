"""PixContrast, ResNet-50, ImageNet: the first pixel task under the second's recipe (arXiv 2011.10043, section 3.1).

Expected: 0.7 AP (Pascal VOC) and 2.0 mAP (COCO) less than PixPro, which is about 58.1 and 38.8 (derived from notes on
the paper; its code and weights were never released). Temperature 0.3; no propagation.

python -m experiments.pretrain --config=experiments/configs/pretrain/pixcontrast_r50_imagenet.py \
    --workdir=workdir/pixcontrast

Variants: 100 (default) and 400 epochs, smoke.
"""

from experiments.configs.pretrain import pixpro_r50_imagenet


def get_config(variant="100"):
    config = pixpro_r50_imagenet.get_config(variant)
    del config.propagation
    config.model = {"name": "pixcontrast", "temperature": 0.3, "level": "5", "distance": 0.7, "momentum": 0.99}
    return config
