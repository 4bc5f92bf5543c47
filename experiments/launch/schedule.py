"""How long a run is, how fast it learns, and how often it stops to save and to evaluate."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.launch.sections import SectionMistake
from tf_evonorm.mistakes import Mistake
from tf_pixpro import WarmupCosine, WarmupStep


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long and how fast, in epochs, at a rate that grows with the batch.

    Attributes:
      images: in one epoch.
      batch: images per step, over all replicas.
      epochs: passes over the images; each drops what does not fill a batch.
      base_rate: learning rate of the peak for 256 images per step; it grows with the batch.
      warmup_epochs: epochs of linear warm-up.
    """

    images: int
    batch: int
    epochs: float
    base_rate: float
    warmup_epochs: float = 5

    def __post_init__(self):
        if self.batch < 1 or self.epochs <= 0 or self.warmup_epochs < 0:
            raise Mistake(
                "a schedule needs a batch of 1 or more, epochs above 0 and warmup_epochs of 0 or more. "
                f"Received batch={self.batch}, epochs={self.epochs}, warmup_epochs={self.warmup_epochs}."
            )

    @property
    def epoch(self) -> int:
        """Steps of an epoch."""
        if self.images < self.batch:
            raise SectionMistake(
                f"an epoch needs at least one batch. Received {self.images} images and "
                f"config.schedule.batch={self.batch}. Pass --config.schedule.batch with fewer."
            )
        return self.images // self.batch

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return max(1, int(self.epoch * self.epochs))

    @property
    def warmup_steps(self) -> int:
        """Steps of the warm-up; at least one step comes after it."""
        return min(int(self.epoch * self.warmup_epochs), self.steps - 1)

    @property
    def peak(self) -> float:
        """Learning rate after the warm-up."""
        return self.base_rate * self.batch / 256

    @property
    def learning_rate(self) -> WarmupCosine:
        """The learning rate by step, if it falls as a cosine."""
        return WarmupCosine(self.peak, self.steps, self.warmup_steps)


@dataclasses.dataclass(frozen=True)
class StepSchedule:
    """How long and how fast, in steps, at an unscaled rate: the protocols of detection and segmentation.

    Attributes:
      steps: of the whole run.
      batch: images per step, over all replicas.
      rate: learning rate after the warm-up; it belongs to the batch.
      drops: steps at which it falls to a tenth; None for a cosine to 0.
      warmup_steps: of a linear warm-up from rate / warmup_factor.
      warmup_factor: see warmup_steps.
    """

    steps: int
    batch: int
    rate: float
    drops: tuple | None = None
    warmup_steps: int = 0
    warmup_factor: float = 1000.0

    def __post_init__(self):
        if self.steps < 1 or self.batch < 1:
            raise Mistake(
                f"a schedule needs steps and batch of 1 or more. Received steps={self.steps}, batch={self.batch}."
            )
        _ = self.learning_rate  # a wrong one is reported here, where the section has a name

    @property
    def learning_rate(self) -> WarmupCosine | WarmupStep:
        """The learning rate by step."""
        if self.drops is None:
            return WarmupCosine(self.rate, self.steps, self.warmup_steps, self.warmup_factor, end=0.0)
        return WarmupStep(self.rate, list(self.drops), 0.1, self.warmup_steps, self.warmup_factor)


def intervals(
    schedule: Schedule,
    steps_per_loop: int = 10,
    checkpoint_epochs: float = 1,
    evaluation_epochs: float = 5,
    max_to_keep: int = 3,
) -> dict[str, Any]:
    """Model Garden's trainer settings.

    Args:
      schedule: of the run.
      steps_per_loop: steps between two updates of the progress bar.
      checkpoint_epochs, evaluation_epochs: epochs between two checkpoints and two evaluations.
      max_to_keep: checkpoints kept.
    """
    return {
        "steps_per_loop": min(steps_per_loop, schedule.steps),
        "checkpoint_interval": max(1, int(checkpoint_epochs * schedule.epoch)),
        "validation_interval": max(1, int(evaluation_epochs * schedule.epoch)),
        "max_to_keep": max_to_keep,
    }
