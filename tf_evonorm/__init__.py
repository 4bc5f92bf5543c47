"""Evolving Normalization-Activation Layers (EvoNorm) in TensorFlow/Keras."""

from tf_evonorm import backbones, biggan
from tf_evonorm.layers import (
    EvoNormB0,
    EvoNormB1,
    EvoNormB2,
    EvoNormS0,
    EvoNormS1,
    EvoNormS2,
    exclude_from_weight_decay,
)
from tf_evonorm.layers.baselines import BatchNormAct, FilterResponseNormAct, GroupNormAct, LayerNormAct, PixelNormAct
from tf_evonorm.replace import norm_act_places, replace_norm_act
from tf_evonorm.search.space.graph_layer import GraphLayer, layer_from_graph

__all__ = [
    "BatchNormAct",
    "EvoNormB0",
    "EvoNormB1",
    "EvoNormB2",
    "EvoNormS0",
    "EvoNormS1",
    "EvoNormS2",
    "FilterResponseNormAct",
    "GraphLayer",
    "GroupNormAct",
    "LayerNormAct",
    "PixelNormAct",
    "backbones",
    "biggan",
    "exclude_from_weight_decay",
    "layer_from_graph",
    "norm_act_places",
    "replace_norm_act",
]
