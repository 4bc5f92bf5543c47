"""A run that is ready to start: what the builders of whole experiments return and the programs execute."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from experiments.launch import session as sessions


@dataclasses.dataclass(frozen=True)
class Run:
    """One training, evaluation or both, with everything that it needs.

    Attributes:
      session: where and how it runs.
      headline: one line about its size, printed before the first step.
      train: () -> (model, results), such as a partial of `tf_pixpro.train.loop.run`.
    """

    session: sessions.Session
    headline: str
    train: Callable[[], tuple[tf.keras.Model, dict[str, float]]]

    def start(self) -> tuple[tf.keras.Model, dict[str, float]]:
        """Trains and prints the last evaluation; returns (model, results)."""
        if self.session.chief:
            print(f"{self.headline}, into {self.session.workdir}", flush=True)
        with self.session, sessions.quiet():
            model, results = self.train()
        if self.session.chief and results:
            print("  ".join(f"{name} {value:.4f}" for name, value in results.items()))
        return model, results


def kept_class_names(folder: str, network: str) -> list[str]:
    """The class names beside a network that a run has kept.

    Args:
      folder: the run's, or its `best`.
      network: 'classifier' or 'generator'.

    Raises:
      FileNotFoundError: if no training has ended, or been evaluated, there.
    """
    if not tf.io.gfile.exists(f"{folder}/{network}.index"):
        raise FileNotFoundError(
            f"a {network} is kept at the end of training, and in best/ at each better evaluation. Received "
            f"{folder!r} without one."
        )
    with tf.io.gfile.GFile(f"{folder}/labels.txt") as file:
        return file.read().splitlines()
