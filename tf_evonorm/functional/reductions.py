"""Sums over the places of a tensor, each in one reading of it: what normalizations measure, and their gradients gather."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import tensorflow as tf

# Places added in one go: a sum over places is a tree of such steps, so that no full-size product is stored.
STEPS = (*range(8, 1, -1), *range(9, 32))
# Values from which compiled loops and trees gain more than they cost, measured on two cores; a compiled loop is kept for each shape.
LARGE = 2**16


def raised(x: tf.Tensor) -> tf.Tensor:
    """x in float32, or as it is in float64."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def worth_compiling(x: tf.Tensor) -> bool:
    """Whether a flat tensor, of a batch of 32 where that is not known, is large enough, and no device other than processors is there."""
    batch, *sizes = x.shape
    devices = {device.device_type for device in tf.config.list_physical_devices()}
    return devices == {"CPU"} and None not in sizes and math.prod([batch or 32, *sizes]) >= LARGE


def compilable(loop: Callable) -> Callable:
    """Gives a function of (compiled, fixed Python arguments, tensors) the choice between plain operations and XLA."""

    @functools.cache
    def xla(*fixed):
        return tf.function(functools.partial(loop, *fixed), jit_compile=True, autograph=False)

    def run(compiled, fixed, *tensors):
        if not compiled:
            return loop(*fixed, *tensors)
        # The concrete function is called, because each new shape is meant to be traced and needs no warning.
        return xla(*fixed).get_concrete_function(*tensors)(*tensors)

    return run


def sums_over_places(terms: Callable, places: int, *tensors: tf.Tensor) -> list[tf.Tensor]:
    """Sums over places of each of terms(*tensors).

    Args:
      terms: function of tensors in float32 or float64 that returns a tuple of tensors of one shape.
      places: the axis of the places, 1 in [B, P, C] or 2 in [B, C, P].
      tensors: [B, P, C] or [B, C, P], any floating dtype.

    Returns:
      a list of [B, 1, C] or [B, C, 1], float32 or float64.
    """
    tree = _tree(places, tensors[0])
    if tree is None:
        return [tf.reduce_sum(term, places, keepdims=True) for term in terms(*(raised(t) for t in tensors))]
    steps = [terms(*step) for step in zip(*(_parts(t, tree[0]) for t in tensors))]
    # XLA makes one loop of one tensor: the sums stand side by side in it, so that they come of one reading of the inputs.
    sums = tf.stack([tf.add_n(term) for term in zip(*steps)], 2)
    for number in tree[1:]:
        sums = tf.add_n(_parts(sums, number))
    return tf.unstack(sums, axis=2)


def _tree(places, x):
    """How many places to add in one go, again and again until one is left; None where plain sums are as good."""
    if places == 2 or not worth_compiling(x):
        return None
    size, numbers = x.shape[places], []
    while size > 1:
        numbers += [next((n for n in STEPS if size % n == 0), size)]
        size //= numbers[-1]
    return numbers if numbers and max(numbers) <= max(STEPS) else None


def _parts(x, number):
    """A tensor [B, P, ...] as that many tensors [B, P / number, ...], float32 or float64."""
    split = tf.reshape(x, [-1, number, x.shape[1] // number, *x.shape[2:]])
    return [raised(split[:, i]) for i in range(number)]


@compilable
def mean_and_variance(places: int, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance over places, shapes as in `sums_over_places`: means and spreads of parts, put together (Chan et al., 1979)."""
    tree = _tree(places, x)
    if tree is None:
        mean = tf.reduce_mean(raised(x), places, keepdims=True)
        return mean, tf.reduce_mean(tf.math.squared_difference(raised(x), mean), places, keepdims=True)
    level, values = _mean_and_spread(_parts(x, tree[0])), tree[0]
    for number in tree[1:]:
        parts = _parts(level, number)
        level = _mean_and_spread([part[:, :, 0] for part in parts], [part[:, :, 1] for part in parts], values)
        values *= number
    mean, spread = tf.unstack(level, axis=2)
    return mean, spread / values


def _mean_and_spread(means, spreads=(), values=1):
    """[B, P, 2, C]: mean and sum of squared deviations, from those of parts with so many values each: one reading, nothing cancels."""
    mean = tf.add_n(means) / len(means)
    between = tf.add_n([tf.math.squared_difference(part, mean) for part in means])
    return tf.stack([mean, tf.add_n([values * between, *spreads])], 2)
