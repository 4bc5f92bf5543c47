"""Trains a class-conditional generator: BigGAN-deep with any layer, on ImageNet, CIFAR-10 or your own images.

python -m experiments.synthesize --config=experiments/configs/synthesize/biggan_32_cifar10.py \
    --config.source.path=cifar10.zip --workdir=workdir/gan
"""

from __future__ import annotations

from experiments.builders import generator
from experiments.gan.task import Adversaries
from experiments.launch import session as sessions


def main(session: sessions.Session) -> tuple[Adversaries, dict[str, float]]:
    """Runs one experiment of `experiments.builders.generator`; returns (model, results of the last evaluation)."""
    return generator.experiment(session).start()


if __name__ == "__main__":
    sessions.launch(main)
