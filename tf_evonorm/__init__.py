"""Evolving Normalization-Activation Layers (EvoNorm) in TensorFlow/Keras."""

from tf_evonorm import backbones
from tf_evonorm.baselines import BatchNormAct, FilterResponseNormAct, GroupNormAct, LayerNormAct

__all__ = ["BatchNormAct", "FilterResponseNormAct", "GroupNormAct", "LayerNormAct", "backbones"]
