"""Backbones whose normalization and activation are an argument, with Model Garden's output contract."""

from tf_evonorm.backbones.backbone import Backbone, HeadedBackbone
from tf_evonorm.backbones.efficientnet import efficientnet
from tf_evonorm.backbones.mobilenet import mnasnet, mobilenetv2
from tf_evonorm.backbones.preactivation_resnet import preactivation_resnet
from tf_evonorm.backbones.resnet import resnet
from tf_evonorm.backbones.spinenet import spinenet

__all__ = [
    "Backbone",
    "HeadedBackbone",
    "efficientnet",
    "mnasnet",
    "mobilenetv2",
    "preactivation_resnet",
    "resnet",
    "spinenet",
]
