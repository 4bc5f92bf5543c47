"""Keras layers that normalize and activate: the six EvoNorms, the baselines, and the form for generators."""

from tf_evonorm.layers.baselines import BatchNormAct, FilterResponseNormAct, GroupNormAct, LayerNormAct, PixelNormAct
from tf_evonorm.layers.conditional import ConditionalNormAct, SpectralNormalization
from tf_evonorm.layers.evonorm import (
    EvoNormB0,
    EvoNormB1,
    EvoNormB2,
    EvoNormS0,
    EvoNormS1,
    EvoNormS2,
)
from tf_evonorm.layers.weight_decay import exclude_from_weight_decay

__all__ = [
    "BatchNormAct",
    "ConditionalNormAct",
    "EvoNormB0",
    "EvoNormB1",
    "EvoNormB2",
    "EvoNormS0",
    "EvoNormS1",
    "EvoNormS2",
    "FilterResponseNormAct",
    "GroupNormAct",
    "LayerNormAct",
    "PixelNormAct",
    "SpectralNormalization",
    "exclude_from_weight_decay",
]
