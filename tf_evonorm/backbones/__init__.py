"""Backbones whose normalization and activation are an argument, with Model Garden's output contract."""

from tf_evonorm.backbones.backbone import Backbone
from tf_evonorm.backbones.resnet import resnet

__all__ = ["Backbone", "resnet"]
