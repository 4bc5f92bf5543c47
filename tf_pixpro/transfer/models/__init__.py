"""Detectors and segmenters around an encoder, and the parts that they share."""
