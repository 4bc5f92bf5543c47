"""Classification of your own photos: ResNet-18 at 96 pixels, fine-tuned from a pre-trained encoder or from scratch.

python -m experiments.classify --config=experiments/configs/classify/finetune_r18_photos.py \
    --config.source.path=photos.zip \
    --config.init=workdir/photos/backbone --workdir=workdir/classes

Without --config.init it starts from scratch. The source has folders train/CLASS and val/CLASS; with other names
--config.source.split and
--config.held_out.split. Any layer: --config.norm_act.name=evonorm_s0 (bn_relu, gn_relu, ...), with weights of the same
one. The rate, 0.1 per 256 images, is a usual one for fine-tuning and not tuned here. Variants: default; smoke.
"""

from experiments.configs.classify import linear_r18_photos


def get_config(variant=""):
    config = linear_r18_photos.get_config(variant)
    config.freeze = None
    config.head.weight_decay = 1e-4
    config.schedule.base_rate = 0.1
    if not variant:
        config.schedule.update(epochs=20.0, warmup_epochs=1.0)
        config.trainer.update(checkpoint_epochs=1.0, evaluation_epochs=2.0, max_to_keep=2)
    return config
