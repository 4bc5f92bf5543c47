"""Overlapping windows: how a segmenter that was trained on crops predicts larger images."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_evonorm.mistakes import Mistake


def slide(logits_of: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor, size: int, stride: int) -> tf.Tensor:
    """Averages logits over all windows that a pixel lies in.

    Args:
      logits_of: [B, size, size, 3] -> [B, h, w, C] logits; brought to the window's size by bilinear interpolation.
      images: [B, H, W, 3] of known H and W.
      size: side of a window in pixels; a smaller image is one window of its own size.
      stride: pixels from a window to the next; the last one ends with the image.

    Returns:
      [B, H, W, C] float32.

    Raises:
      Mistake: if stride is not from 1 to size, or H or W is unknown.

    Source: sliding-window evaluation as in mmsegmentation's "slide" mode, which the FCN protocol names.
    """
    height, width = images.shape[1:3]
    if not 1 <= stride <= size or height is None or width is None:
        raise Mistake(
            f"windows need 1 <= stride <= size and images of known size. "
            f"Received size={size}, stride={stride}, images {images.shape}."
        )
    total, count = 0.0, 0.0
    for top, rows in _places(height, size, stride):
        for left, columns in _places(width, size, stride):
            logits = logits_of(images[:, top : top + rows, left : left + columns])
            logits = tf.image.resize(tf.cast(logits, tf.float32), [rows, columns])
            border = [[0, 0], [top, height - top - rows], [left, width - left - columns], [0, 0]]
            total += tf.pad(logits, border)
            count += tf.pad(tf.ones([1, rows, columns, 1]), border)
    return total / count


def _places(side, size, stride):
    """(start, length) of the windows along one side."""
    if side <= size:
        return [(0, side)]
    starts = list(range(0, side - size, stride))
    return [(start, size) for start in [*starts, side - size]]
