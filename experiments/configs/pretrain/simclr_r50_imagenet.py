"""SimCLR's term alone, ResNet-50, ImageNet: the instance-level baseline under PixPro's recipe.

Expected: no published number. SimCLR itself (arXiv 2002.05709) has no momentum encoder, a batch of 4096, stronger
jitter (`--config.views.recipe=SimCLR` here) and reaches 69.3 linear accuracy in 1,000 epochs.

python -m experiments.pretrain --config=experiments/configs/pretrain/simclr_r50_imagenet.py --workdir=workdir/simclr

Variants: 100 (default) and 400 epochs, smoke. Negatives are all other images of the step, on all replicas.
"""

from experiments.configs.pretrain import pixpro_r50_imagenet


def get_config(variant="100"):
    config = pixpro_r50_imagenet.get_config(variant)
    config.instance = {"name": "simclr", "temperature": 0.1, **config.projection}
    config.model.update({"pixel_weight": 0.0, "instance_weight": 1.0})
    del config.projection, config.propagation
    return config
