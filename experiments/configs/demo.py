"""The demo: PixPro on synthetic scenes, then segmentation with few labels, pre-trained and from scratch.

Expected (three seeds, 32 labelled scenes): mIoU of object and background 64.5 ± 4.0 from scratch, 72.1 ± 1.3
pre-trained. 13 minutes of processor time, about 8 on two idle cores.

make demo
python -m experiments.demo --workdir=workdir/demo

Variants: the default, smoke. With --images the source is a folder or zip of your own, and `images` changes `views`.
"""

from ml_collections import ConfigDict

from tf_pixpro.views.augment import View


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"the variant must be smoke or nothing. Received {variant!r}.")
    config = ConfigDict()
    config.seed = 0
    config.deterministic = False
    config.source = {"path": "scenes", "num_examples": 1500}
    # In the scenes colours are chance, so the views change them more than the recipe for photos does; small crops make
    # short steps.
    view = View(hue=0.5, saturation=0.8)
    config.views = {"size": (64, 64), "recipe": (view, view), "scale": (0.1, 0.6)}
    config.images = {"size": (64, 64), "recipe": "BYOL", "scale": (0.08, 1.0)}
    config.norm_act = {"name": "bn_relu"}
    config.backbone = {"name": "resnet", "depth": 18, "blocks": (1, 1, 1, 1), "width": 0.25, "output_stride": 8}
    config.projection = {"hidden": 512, "features": 128}
    config.propagation = {}
    config.model = {"level": "5", "distance": 0.7, "momentum": 0.99}
    config.schedule = {"batch": 32, "epochs": 1.0, "warmup_epochs": 1.0, "base_rate": 8.0}
    config.optimizer = {"name": "lars", "momentum": 0.9, "weight_decay": 1e-5}
    config.evaluation = {}
    config.pictures = 4
    config.trainer = {"steps_per_loop": 10, "checkpoint_epochs": 1.0, "evaluation_epochs": 1.0}
    config.runtime = {"distribution_strategy": "one_device", "num_gpus": -1}
    # Steps of pre-training, whatever the number of images (the demo sets what is counted in epochs); scenes to learn
    # segmentation from, scenes to score on, their side in pixels.
    config.steps = 1000
    config.labels = {"scenes": 32, "held_out": 100, "size": 128}
    config.finetune = {"seeds": 3, "steps": 200, "batch": 8, "rate": 0.1}
    if variant == "smoke":
        config.source.num_examples, config.steps, config.pictures = 16, 4, 1
        config.backbone.width, config.projection = 0.125, {"hidden": 16, "features": 8}
        config.schedule.update({"batch": 4, "warmup_epochs": 0.0})
        config.trainer.steps_per_loop = 2
        config.labels = {"scenes": 4, "held_out": 4, "size": 64}
        config.finetune.update({"seeds": 2, "steps": 2, "batch": 4})
    return config
