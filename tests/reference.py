"""Reading the reference archives: their JSON notes, and PyTorch's axis order converted to Keras'."""

import json

import numpy as np


def notes(archive) -> dict:
    """The archive's `meta_json`."""
    return json.loads(bytes(archive["meta_json"]))


def channels_last(array: np.ndarray) -> np.ndarray:
    """NCHW -> NHWC."""
    return np.transpose(array, (0, 2, 3, 1))


def kernel(array: np.ndarray) -> np.ndarray:
    """OIHW -> HWIO; anything else as it is."""
    return np.transpose(array, (2, 3, 1, 0)) if array.ndim == 4 else array


def relative_error(value, reference) -> float:
    """|value - reference| / |reference| over the whole array (absolute where the reference is zero)."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    return np.linalg.norm(value - reference) / (np.linalg.norm(reference) or 1.0)
