"""Replaces every normalization of a Keras model, with the activation that follows it, by one layer such as EvoNorm."""

from tf_evonorm.replace.positions import Position, norm_act_places
from tf_evonorm.replace.rebuild import replace_norm_act
from tf_evonorm.replace.stand_ins import PassThrough, SharedActivation

__all__ = ["PassThrough", "Position", "SharedActivation", "norm_act_places", "replace_norm_act"]
