"""Linear evaluation on a zip of labelled photos: ResNet-18 at 96 pixels, after a run of `compare_r18_photos`.

The protocol of `linear_r50_imagenet` in small: batch 64, 8 epochs. The features are standardized first, and the rate is
0.4 per 256 images: features of small encoders differ in size tenfold from task to task, and with the protocol's 30 on
plain ones the loss passes 400. Nothing is stored: with random crops every epoch sees other features.

python -m experiments.classify --config=experiments/configs/classify/linear_r18_photos.py \
    --config.source.path=caltech101.zip \
    --config.init=workdir/compare/pixpro-0/backbone --workdir=workdir/compare/pixpro-0/linear

Without --config.init it gives the accuracy of random features. The source has folders train/CLASS and val/CLASS.
Variants: default; smoke.
"""

from experiments.configs.classify import linear_r50_imagenet


def get_config(variant=""):
    config = linear_r50_imagenet.get_config(variant)
    config.views.size = (96, 96)
    config.backbone.depth = 18
    config.freeze.standardize = True
    config.schedule.base_rate = 0.4
    config.runtime.mixed_precision_dtype = "float32"
    if not variant:
        config.source = {"path": "", "split": "train", "min_side": 96}
        config.held_out = {"split": "val"}
        config.schedule.update(batch=64, epochs=8.0, warmup_epochs=0.5)
        config.trainer.update(steps_per_loop=10, checkpoint_epochs=4.0, evaluation_epochs=8.0, max_to_keep=1)
    return config
