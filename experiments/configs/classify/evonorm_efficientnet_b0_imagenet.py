"""ImageNet, EfficientNet-B0 with EvoNorm, 350 epochs.

The recipe is EfficientNet's, that of MobileNetV2 here with stochastic depth 0.2 and a batch of 2048. Expected top-1
(paper, table 2): BN-ReLU 76.4, BN-Swish 77.0, EvoNorm-B0 76.8, B1 76.5, B2 76.6. RandAugment:
--config.views.randaugment_layers=2. Not trained here. The source is a pattern of TFRecords with Model Garden's ImageNet
keys (train* and validation*), tfds:imagenet2012, or a folder. Any layer: --config.norm_act.name=evonorm_s0 (evonorm_b1,
bn_relu, bn_swish, gn_relu, frn, ...; default: the backbone's own).

python -m experiments.classify --config=experiments/configs/classify/evonorm_efficientnet_b0_imagenet.py \
    --config.source.path='train*' --config.source.num_classes=1001 \
    --config.held_out.path='validation*' --workdir=workdir/evonorm_efficientnet_b0_imagenet

Variants: default; smoke.
"""

from experiments.configs.classify import evonorm_mobilenetv2_imagenet


def get_config(variant=""):
    config = evonorm_mobilenetv2_imagenet.get_config(variant)
    config.backbone.update(name="efficientnet", variant="b0", stochastic_depth=0.2)
    if variant != "smoke":
        config.schedule.batch = 2048
    return config
