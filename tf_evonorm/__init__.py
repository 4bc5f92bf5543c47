"""Evolving Normalization-Activation Layers (EvoNorm) in TensorFlow/Keras."""
