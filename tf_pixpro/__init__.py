"""Propagate Yourself (PixPro): pixel-level unsupervised pre-training in TensorFlow/Keras."""
