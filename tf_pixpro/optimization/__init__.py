"""How weights are updated: LARS, the table of optimizers, learning rate schedules, the momentum schedule."""

from tf_pixpro.optimization.lars import LARS
from tf_pixpro.optimization.named import OPTIMIZERS
from tf_pixpro.optimization.schedules import WarmupCosine, WarmupStep, momentum_schedule

__all__ = ["LARS", "OPTIMIZERS", "WarmupCosine", "WarmupStep", "momentum_schedule"]
