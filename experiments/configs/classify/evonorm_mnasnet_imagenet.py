"""ImageNet, MnasNet-B1 with EvoNorm, 350 epochs.

The recipe is that of the MnasNet code on which the paper's rests: 0.016 per 256 images, 0.97 every 2.4 epochs. Expected
top-1 (paper, table 2): BN-ReLU 74.5, BN-Swish 75.3, EvoNorm-B0 75.3, B1 75.1, B2 74.9. Not trained here.
The source is a pattern of TFRecords with Model Garden's ImageNet keys (train* and validation*), tfds:imagenet2012, or a
folder. Any layer: --config.norm_act.name=evonorm_s0 (evonorm_b1, bn_relu, bn_swish, gn_relu, frn, ...; default: the
backbone's own).

python -m experiments.classify --config=experiments/configs/classify/evonorm_mnasnet_imagenet.py \
    --config.source.path='train*' --config.source.num_classes=1001 \
    --config.held_out.path='validation*' --workdir=workdir/evonorm_mnasnet_imagenet

Variants: default; smoke.
"""

from experiments.configs.classify import evonorm_mobilenetv2_imagenet


def get_config(variant=""):
    config = evonorm_mobilenetv2_imagenet.get_config(variant)
    config.backbone.name = "mnasnet"
    return config
