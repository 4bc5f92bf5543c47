"""Trains an image classifier: any backbone, any layer, on ImageNet, CIFAR-10 or your own folder of images.

python -m experiments.classify --config=experiments/configs/classify/evonorm_r20_cifar10.py \
    --config.source.path=cifar10.zip --workdir=workdir/cifar
"""

from __future__ import annotations

import tensorflow as tf

from experiments.builders import classifier
from experiments.launch import session as sessions


def main(session: sessions.Session) -> tuple[tf.keras.Model, dict[str, float]]:
    """Runs one experiment of `experiments.builders.classifier`; returns (model, results of the last evaluation)."""
    return classifier.experiment(session).start()


if __name__ == "__main__":
    sessions.launch(main)
