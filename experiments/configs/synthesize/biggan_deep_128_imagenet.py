"""BigGAN-deep, 128 x 128 pixels, ImageNet: the EvoNorm paper's image synthesis, with its layer in the generator.

Expected (EvoNorm paper, first version, Table 5; median of 3 seeds): Inception Score and FID of BN-ReLU 118.77 and 7.85,
EvoNorm-B0 101.13 and 6.91, EvoNorm-S0 104.64 and 6.86, GN-ReLU 99.09 and 8.14. The paper does not say at what
resolution or with what settings; these are BigGAN's (appendix C: batch 2048, Adam with beta_1 = 0, averages of 0.9999),
where batch, rates and number of the discriminator's steps of BigGAN-deep are unconfirmed. Needs ImageNet as TFRecords
or tfds:imagenet2012, and accelerators; not run here.

python -m experiments.synthesize --config=experiments/configs/synthesize/biggan_deep_128_imagenet.py \
    --config.source.path=tfds:imagenet2012 \
  --config.norm_act.name=evonorm_b0 --config.scores.inception=imagenet --workdir=workdir/biggan --tpu=local

Variants: default; smoke.
"""

from experiments.configs.synthesize import biggan_32_cifar10


def get_config(variant=""):
    config = biggan_32_cifar10.get_config(variant)
    if variant == "smoke":
        config.images.size = 128
        config.source.size = (128, 128)
        config.generator.attention = config.discriminator.attention = 64
        config.schedule.batch = 2
        return config
    config.held_out.split = "train"
    config.images.size = 128
    config.generator = {"width": 1.0, "latent": 128, "embedding": 128, "attention": 64}
    config.discriminator = {"width": 1.0, "attention": 64}
    config.schedule = {"steps": 250000, "batch": 2048}
    config.optimizers.generator.learning_rate = 5e-5
    config.optimizers.discriminator.learning_rate = 2e-4
    config.training.update(discriminator_steps=2, average_decay=0.9999, average_start=20000)
    config.collapse_steps = 2000
    config.precise_norm_steps = 100
    config.scores.update(limit=50000, batch=256)
    config.trainer.update(
        steps_per_loop=500,
        checkpoint_interval=2500,
        validation_interval=5000,
        max_to_keep=3,
    )
    config.runtime.mixed_precision_dtype = "bfloat16"
    return config
