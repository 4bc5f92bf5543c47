"""BigGAN-deep on CIFAR-10, small enough for two processor cores: which normalization serves the generator best?

The source is a folder or zip with train/CLASS and test/CLASS; or --config.source.path=tfds:cifar10. Any layer of the
generator:
--config.norm_act.name=evonorm_b0 (bn_relu, gn_relu, ln_relu, pixel_relu, evonorm_s0, ...); those that use the batch
take it from all replicas unless --config.norm_act.synchronized=False. No result at this size is published: the EvoNorm
paper's table (FID of B0 and S0 below that of BatchNorm and GroupNorm with ReLU) is of a BigGAN-deep of full size.
Scores need a judge, a run of experiments.classify (--config.scores.classifier=workdir/cifar), and are named after it. A
step takes 0.35 s of one core (2026-11-23, a busy machine), a run about ten minutes.

python -m experiments.synthesize --config=experiments/configs/synthesize/biggan_32_cifar10.py \
    --config.source.path=cifar10.zip --workdir=workdir/gan

Variants: default; smoke.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"the variant must be smoke or none. Received {variant!r}.")
    config = ConfigDict()
    config.seed = 0
    config.deterministic = False
    config.source = {"path": "", "split": "train"}
    config.held_out = {"split": "train"}  # the usual reference of such scores
    config.images = {"size": 32, "flip": 0.5}
    config.norm_act = {"name": "evonorm_s0", "synchronized": placeholder(bool)}
    config.generator = {"width": 0.125, "latent": 64, "embedding": 32, "attention": 0}
    config.discriminator = {"width": 0.125, "attention": 0}
    config.schedule = {"steps": 1500, "batch": 32}
    config.optimizers = {
        "generator": {"learning_rate": 2e-4, "beta_1": 0.0, "beta_2": 0.999, "epsilon": 1e-6},
        "discriminator": {"learning_rate": 4e-4, "beta_1": 0.0, "beta_2": 0.999, "epsilon": 1e-6},
    }
    config.training = {"discriminator_steps": 1, "average_decay": 0.995, "average_start": 200, "collapse_loss": 0.01}
    config.collapse_steps = 300
    config.precise_norm_steps = 20
    config.scores = {"classifier": "", "name": "", "inception": "", "limit": 2000, "batch": 100, "splits": 10}
    config.pictures = {"rows": 10, "columns": 8}
    config.trainer = {
        "steps_per_loop": 50,
        "checkpoint_interval": 500,
        "validation_interval": 500,
        "max_to_keep": 1,
    }
    config.runtime = {"distribution_strategy": "mirrored", "mixed_precision_dtype": "float32", "num_gpus": -1}
    if variant == "smoke":
        config.source = {"path": "scenes", "num_examples": 16, "size": (32, 32)}
        config.held_out = {"seed": 1}
        config.norm_act.name = "bn_relu"
        config.generator.update(width=1 / 32, latent=8, embedding=4)
        config.discriminator.width = 1 / 32
        config.schedule.update(steps=4, batch=4)
        config.training.update(average_start=1)
        config.precise_norm_steps = 2
        config.pictures.update(rows=2, columns=3)
        config.trainer.update(steps_per_loop=2, checkpoint_interval=2, validation_interval=4)
    return config
