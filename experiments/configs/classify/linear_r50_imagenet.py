"""Linear evaluation, ResNet-50, ImageNet (arXiv 2011.10043, section 4).

One linear layer is trained on the pooled features of a frozen encoder.

The authors' hyperparameters: SGD, rate 30 at batch 256, momentum 0.9, no decay, 100 epochs, 5 of them warm-up from a
hundredth, cosine to 1e-6; crops from 0.08 and flips; tested on the centre 224 of 256, here all 50,000 images (theirs
drop what fills no batch). Expected top-1 (notes on the paper): PixPro, 100 epochs, 55.1; with the instance term 66.3.
Not run here.

python -m experiments.classify --config=experiments/configs/classify/linear_r50_imagenet.py \
    --config.init=workdir/r50/backbone --workdir=workdir/linear

The encoder runs in inference mode; --config.freeze.mode=training is the authors' way, whose normalizations use the
batch and keep moving. Differences: TensorFlow's SGD has the rate inside its momentum, PyTorch's outside; bfloat16, not
float16. Variants: default; smoke.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"the variant must be smoke or none. Received {variant!r}.")
    config = ConfigDict()
    config.seed = 0
    config.deterministic = False
    config.source = {"path": "tfds:imagenet2012", "split": "train", "num_classes": placeholder(int)}
    config.held_out = {"path": "tfds:imagenet2012", "split": "validation"}
    config.max_bad_share = 0.01
    config.views = {"size": (224, 224), "scale": (0.08, 1.0), "flip": 0.5}
    config.evaluation = {"margin": 256 / 224}
    config.norm_act = {"name": "bn_relu"}
    config.backbone = {"name": "resnet", "depth": 50}
    config.init = ""
    config.freeze = {"mode": "inference", "standardize": False}
    config.head = {"dropout": 0.0, "weight_decay": 0.0}
    config.label_smoothing = 0.0
    config.schedule = {"batch": 256, "epochs": 100.0, "base_rate": 30.0, "warmup_epochs": 5.0}
    config.rate = {"kind": "cosine", "end": 1e-6}
    config.warmup = {"start": 0.01}
    config.optimizer = {"name": "sgd", "momentum": 0.9}
    config.average = None
    config.trainer = {"steps_per_loop": 500, "checkpoint_epochs": 1.0, "evaluation_epochs": 5.0, "max_to_keep": 3}
    config.runtime = {"distribution_strategy": "mirrored", "mixed_precision_dtype": "bfloat16", "num_gpus": -1}
    if variant == "smoke":
        config.source = {"path": "scenes", "num_examples": 8, "size": (64, 64)}
        config.held_out = {"path": "scenes", "num_examples": 7, "seed": 1}
        config.views.size = (64, 64)
        config.backbone.update(width=0.125, blocks=(1, 1, 1, 1))
        config.schedule.update(batch=4, epochs=1.0, warmup_epochs=0.5)
        config.trainer.update(steps_per_loop=1, evaluation_epochs=1.0)
        config.runtime.mixed_precision_dtype = "float32"
    return config
