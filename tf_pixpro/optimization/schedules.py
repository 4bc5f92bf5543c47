"""Schedules by step: learning rates with a linear warm-up, and the momentum of the momentum encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from tf_evonorm.mistakes import Mistake


class _Warmup(tf.keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise from peak / warmup_factor to peak over `warmup_steps`, then `after(steps since)`."""

    def __init__(self, peak: float, warmup_steps: int = 0, warmup_factor: float = 100.0):
        if warmup_steps < 0:
            raise Mistake(f"warmup_steps must be 0 or more. Received warmup_steps={warmup_steps}.")
        if not warmup_factor >= 1:
            raise Mistake(f"warmup_factor must be at least 1. Received warmup_factor={warmup_factor}.")
        self.peak, self.warmup_steps, self.warmup_factor = peak, warmup_steps, warmup_factor

    def __call__(self, step):
        step = tf.cast(step, tf.keras.backend.floatx())
        rise = step / max(self.warmup_steps, 1)
        warming = self.peak / self.warmup_factor * ((self.warmup_factor - 1) * rise + 1)
        if not self.warmup_steps:
            return self.after(step)
        return tf.where(step <= self.warmup_steps, warming, self.after(step - self.warmup_steps))

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "warmup_factor": self.warmup_factor}


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class WarmupCosine(_Warmup):
    """A linear warm-up, then a cosine down to `end`: the learning rate of the authors' recipe.

    Args:
      peak: rate at the end of the warm-up; the authors take base rate * global batch / 256.
      steps: steps of the whole run, warm-up included.
      warmup_steps: length of the warm-up; 0 for none.
      warmup_factor: the warm-up starts at peak / warmup_factor.
      end: rate at step `steps`.

    Raises:
      Mistake: if steps is not larger than warmup_steps.

    Source: the authors' `contrast/lr_scheduler.py` (paper, section 4: cosine, 5 epochs of warm-up). A step counts from
      0.
    Keras' `CosineDecay(warmup_target=peak)` differs by 7.5e-8 of the peak, which at the end of a run is 2.6e-5 of the
    rate, more than the golden vectors allow.
    """

    def __init__(self, peak: float, steps: int, warmup_steps: int = 0, warmup_factor: float = 100.0, end: float = 1e-6):
        super().__init__(peak, warmup_steps, warmup_factor)
        if steps <= warmup_steps:
            raise Mistake(
                f"steps must be larger than warmup_steps. Received steps={steps}, warmup_steps={warmup_steps}. "
                "Train longer or shorten the warm-up."
            )
        self.steps, self.end = steps, end

    def after(self, step: tf.Tensor) -> tf.Tensor:
        progress = tf.minimum(step / (self.steps - self.warmup_steps), 1.0)
        return self.end + (self.peak - self.end) * (1 + tf.cos(math.pi * progress)) / 2

    def get_config(self):
        return {**super().get_config(), "steps": self.steps, "end": self.end}


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class WarmupStep(_Warmup):
    """A linear warm-up, then a drop by `rate` at each milestone.

    Args:
      peak: rate at the end of the warm-up.
      milestones: steps (from the start of the run, rising) at which the rate drops.
      rate: factor of each drop.
      warmup_steps, warmup_factor: as in `WarmupCosine`.

    Source: the authors' `contrast/lr_scheduler.py`, option "step".
    """

    def __init__(
        self,
        peak: float,
        milestones: Sequence[int],
        rate: float = 0.1,
        warmup_steps: int = 0,
        warmup_factor: float = 100.0,
    ):
        super().__init__(peak, warmup_steps, warmup_factor)
        self.milestones, self.rate = list(milestones), rate

    def after(self, step: tf.Tensor) -> tf.Tensor:
        passed = sum(tf.cast(step >= m - self.warmup_steps, step.dtype) for m in self.milestones)
        return self.peak * self.rate ** tf.convert_to_tensor(passed, step.dtype)

    def get_config(self):
        return {**super().get_config(), "milestones": self.milestones, "rate": self.rate}


def momentum_schedule(step: tf.Tensor | int, steps: int, start: float = 0.99) -> tf.Tensor:
    """Momentum of the key branch at one step: a half cosine from `start` to 1.

    Args:
      step: scalar or tensor, updates made so far (0 at the first); integer or floating.
      steps: updates of the whole run.
      start: momentum at step 0.

    Returns:
      A floating tensor of step's shape: 1 - (1 - start) * (cos(pi * step / steps) + 1) / 2.

    Raises:
      Mistake: if steps is not positive or start is outside [0, 1].

    Source: PixPro section 4.1 and the authors' `_momentum_update_key_encoder`.
    """
    if steps < 1:
        raise Mistake(f"steps must be at least 1. Received steps={steps}.")
    if not 0 <= start <= 1:
        raise Mistake(f"start must be in [0, 1]. Received start={start}.")
    progress = tf.cast(step, tf.keras.backend.floatx()) / steps
    return 1 - (1 - start) * (tf.cos(math.pi * progress) + 1) / 2
