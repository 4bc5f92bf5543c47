"""Operations on the colours of an image [3, h, w], float32 in 0..255, as Pillow does them."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import tensorflow as tf

GRAY = (0.299, 0.587, 0.114)


def luma(planes: tf.Tensor) -> tf.Tensor:
    """[h, w], ITU-R 601 gray as Pillow's mode L, not rounded."""
    return tf.add_n([weight * plane for weight, plane in zip(GRAY, tf.unstack(planes))])


def _clipped(planes):
    return tf.clip_by_value(planes, 0.0, 255.0)


def brightened(planes: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """Every value times a factor, which is not negative."""
    return tf.minimum(planes * factor, 255.0)


def contrasted(planes: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """Away from (factor above 1) or toward the mean gray of the image."""
    mean = tf.round(tf.reduce_sum(tf.reduce_mean(planes, axis=[1, 2]) * tf.constant(GRAY)))
    return _clipped(planes * factor + mean * (1 - factor))


def saturated(planes: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """Away from or toward each pixel's own gray."""
    return _clipped(planes * factor + luma(planes) * (1 - factor))


def adjusted_hue(planes: tf.Tensor, turn: tf.Tensor | float) -> tf.Tensor:
    """Hue rotated by a fraction of the circle, in Pillow's 8-bit HSV: hue and saturation are cut to whole 255ths."""
    red, green, blue = tf.unstack(tf.round(planes))
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    # Sectors of the circle, 0 ... 6 from red; a gray has chroma 0 and any hue.
    unit = tf.math.reciprocal(tf.maximum(chroma, 1.0))
    from_green, from_blue = 2.0 + (blue - red) * unit, 4.0 + (red - green) * unit
    hue = tf.where(red >= value, (green - blue) * unit, tf.where(green >= value, from_green, from_blue)) / 6.0
    steps = tf.cast(tf.cast(turn * 255.0, tf.int32), tf.float32)
    hue = tf.floor((hue - tf.floor(hue)) * 255.0) + steps
    hue = (hue - 256.0 * tf.floor(hue / 256.0)) * (6.0 / 255.0)
    chroma = tf.floor(chroma * 255.0 / tf.maximum(value, 1.0)) * value / 255.0
    # Each channel is `value` less a trapezoid of the hue, the same for all three but for where it starts.
    place = hue + tf.constant([5.0, 3.0, 1.0], shape=[3, 1, 1])
    place = tf.where(place < 6.0, place, place - 6.0)
    return value - chroma * tf.clip_by_value(tf.minimum(place, 4.0 - place), 0.0, 1.0)


def gray(planes: tf.Tensor) -> tf.Tensor:
    """Three equal channels."""
    return tf.stack([luma(planes)] * 3)


def solarized(planes: tf.Tensor) -> tf.Tensor:
    """Values from 128 on inverted: of a value and 255 less it, whichever is smaller."""
    return tf.minimum(planes, 255.0 - planes)


def blurred(planes: tf.Tensor, sigma: tf.Tensor | float) -> tf.Tensor:
    """Pillow's GaussianBlur: three box filters of fractional width in sequence, edges repeated.

    Args:
      planes: [3, h, w] in 0..255.
      sigma: in pixels, up to 2.

    Source: Pillow rounds to whole values after each of its six passes, here nothing is rounded. Where sigma is small a
      pass is almost the identity and roundings add up, to 3 levels at most (0.04 % of the values of noise at 0.31);
      from 0.5 on the difference is 2 at most, mostly 0.
    """
    down = _blurred_rows(planes, sigma)
    return tf.transpose(_blurred_rows(tf.transpose(down, [0, 2, 1]), sigma), [0, 2, 1])


def _blurred_rows(planes, sigma):
    """The whole blur from row to row, a product with a sparse matrix; each of the three filters meets the edge.

    One box filter is a sum over its taps (distance 0, 1, 2) of a weight times a constant matrix. So its third power is
    a sum of ten constant matrices too, and only their weights depend on sigma.
    """
    rows = planes.shape[1]
    indices, terms = _blur_terms(rows)
    powers = list(itertools.combinations_with_replacement(range(3), 3))
    weights = tf.reduce_prod(tf.gather(_box_taps(sigma), tf.constant(powers)), axis=1)
    values = tf.add_n([weight * term for weight, term in zip(tf.unstack(weights), terms)])
    matrix = tf.SparseTensor(indices, values, [rows, rows])
    return tf.stack([tf.sparse.sparse_dense_matmul(matrix, plane) for plane in tf.unstack(planes)])


@functools.lru_cache(maxsize=8)
def _blur_terms(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """[n, 2] int64, where any of ten matrices is not zero, and [10, n] float32, their values there.

    A matrix is, for its choice of three taps, the sum of their products in every order.
    """
    once = np.zeros([3, pixels, pixels])
    for row in range(pixels):
        for offset in range(-2, 3):
            once[abs(offset), row, min(max(row + offset, 0), pixels - 1)] += 1
    terms = []
    for taps in itertools.combinations_with_replacement(range(3), 3):
        terms.append(sum(once[a] @ once[b] @ once[c] for a, b, c in set(itertools.permutations(taps))))
    indices = np.argwhere(np.any(terms, axis=0))
    return indices, np.stack([term[tuple(indices.T)] for term in terms]).astype(np.float32)


def _box_taps(sigma):
    """[3] weights, at distances 0, 1 and 2, of the box filter of which three make a Gaussian of this sigma.

    Source: Gwosdek et al. 2011 (extended box filters), as Pillow's ImagingGaussianBlur.
    """
    variance = tf.square(sigma) / 3
    whole = tf.floor((tf.sqrt(12 * variance + 1) - 1) / 2)
    rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - tf.square(whole + 1)))
    inner = 1 / (2 * (whole + rest) + 1)
    outer = (1 - (2 * whole + 1) * inner) / 2
    distance = tf.range(3.0)
    return tf.where(distance <= whole, inner, tf.where(distance <= whole + 1, outer, 0.0))
