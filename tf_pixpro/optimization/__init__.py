"""How the weights of the pretext model move: LARS, learning rate schedules, the momentum schedule."""

from tf_pixpro.optimization.lars import LARS
from tf_pixpro.optimization.schedules import WarmupCosine, WarmupStep, momentum_schedule

__all__ = ["LARS", "WarmupCosine", "WarmupStep", "momentum_schedule"]
