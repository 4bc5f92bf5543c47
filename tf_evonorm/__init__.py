"""Evolving Normalization-Activation Layers (EvoNorm) in TensorFlow/Keras."""

from tf_evonorm import backbones

__all__ = ["backbones"]
