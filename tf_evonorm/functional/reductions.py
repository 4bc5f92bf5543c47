"""Sums over the positions of a tensor, each in one reading of it, and the choice of compiled loops."""

from __future__ import annotations

import collections
import contextlib
import functools
import math
import threading
from collections.abc import Callable, Iterator

import tensorflow as tf

# Positions added in one go: a sum over positions is a tree of such steps, so that no full-size product is stored.
STEPS = (*range(8, 1, -1), *range(9, 32))
LARGE = 2**16  # values from which compiled loops and trees gain more than they cost, measured on two cores
# Eager calls compile a shape that comes back, and a few shapes only: each costs about half a second and stays in
# memory.
EAGER_CALLS, EAGER_SHAPES = 4, 24
KEPT = 256  # compiled loops that are kept for the next call or trace; a network needs four for each of its shapes

_target: frozenset[str] | None = None


def raised(x: tf.Tensor) -> tf.Tensor:
    """x in float32, or as it is in float64."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


@contextlib.contextmanager
def traced_for(*devices: str) -> Iterator[None]:
    """Chooses loops for other devices than those of this machine, in all threads: `with traced_for("TPU"): ...`.

    On processors alone the layers sum by trees and compile their inner loops; with a GPU they compile them without
    trees; for a TPU they do neither.
    A program that is traced on one machine and runs on another says so here.

    Args:
      *devices: device types, such as "TPU", "GPU" or "CPU".
    """
    global _target
    before, _target = _target, frozenset(devices)
    try:
        yield
    finally:
        _target = before


def worth_compiling(x: tf.Tensor) -> bool:
    """Whether a flat tensor is large (an unknown batch counts as 32), its sizes known, and no TPU will run it.

    Processors and GPUs run plain operations one by one, each of which reads and writes whole tensors; a program for a
    TPU is compiled as a whole. A call or layer that was measured chooses for itself: `compiled`, `jit_compile`.
    """
    batch, *sizes = x.shape
    return "TPU" not in _devices() and None not in sizes and math.prod([batch or 32, *sizes]) >= LARGE


def on_processors() -> bool:
    """Whether only processors will run what is traced."""
    return _devices() == {"CPU"}


def _devices():
    return _target or {device.device_type for device in tf.config.list_physical_devices()}


class _EagerShapes:
    """Which shapes eager calls compile: those that come back, up to a number."""

    def __init__(self):
        self.calls, self.compiled, self.lock = collections.OrderedDict(), set(), threading.Lock()

    def compiles(self, shape: tuple) -> bool:
        with self.lock:
            if shape in self.compiled or len(self.compiled) >= EAGER_SHAPES:
                return shape in self.compiled
            self.calls[shape] = self.calls.pop(shape, 0) + 1
            if self.calls[shape] >= EAGER_CALLS:
                self.compiled.add(shape)
                del self.calls[shape]
            elif len(self.calls) > 256:
                self.calls.popitem(last=False)
            return shape in self.compiled


eager_shapes = _EagerShapes()


def compiles(kind: str, x: tf.Tensor) -> bool:
    """Whether XLA compiles the loops of one formula over a flat tensor, where the caller leaves the choice."""
    if not worth_compiling(x):
        return False
    return not tf.executing_eagerly() or eager_shapes.compiles((kind, x.dtype, *x.shape))


def compilable(loop: Callable) -> Callable:
    """Gives a function of (compiled, fixed Python arguments, tensors) the choice between plain operations and XLA."""

    def run(compiled, fixed, *tensors):
        if not compiled:
            return loop(*fixed, *tensors)
        specs = tf.nest.map_structure(lambda x: None if x is None else tf.TensorSpec(x.shape, x.dtype), tensors)
        return _compiled(loop, fixed, specs)(*tensors)

    return run


@functools.lru_cache(maxsize=KEPT)
def _compiled(loop, fixed, specs):
    """A loop compiled for tensors of some shapes; graphs that call it keep it for themselves."""
    return tf.function(functools.partial(loop, *fixed), jit_compile=True, autograph=False).get_concrete_function(*specs)


def sums_over_positions(terms: Callable, positions: int, *tensors: tf.Tensor) -> list[tf.Tensor]:
    """Sums over positions of each of terms(*tensors).

    Args:
      terms: function of tensors in float32 or float64 that returns a tuple of tensors of one shape.
      positions: the axis of the positions, 1 in [B, P, C] or 2 in [B, C, P].
      tensors: [B, P, C] or [B, C, P], any floating dtype.

    Returns:
      a list of [B, 1, C] or [B, C, 1], float32 or float64.
    """
    tree = _tree(positions, tensors[0])
    if tree is None:
        return [tf.reduce_sum(term, positions, keepdims=True) for term in terms(*(raised(t) for t in tensors))]
    steps = [terms(*step) for step in zip(*(_parts(t, tree[0]) for t in tensors))]
    # XLA makes one loop of one tensor: the sums stand side by side in it, so that they come of one reading of the
    # inputs.
    sums = tf.stack([tf.add_n(term) for term in zip(*steps)], 2)
    for number in tree[1:]:
        sums = tf.add_n(_parts(sums, number))
    return tf.unstack(sums, axis=2)


def _tree(positions, x):
    """How many positions to add in one go, again and again until one is left; None where plain sums are as good."""
    if positions == 2 or not on_processors() or not worth_compiling(x):
        return None
    size, numbers = x.shape[positions], []
    while size > 1:
        numbers += [next((n for n in STEPS if size % n == 0), size)]
        size //= numbers[-1]
    return numbers if numbers and max(numbers) <= max(STEPS) else None


def _parts(x, number):
    """A tensor [B, P, ...] as that many tensors [B, P / number, ...], float32 or float64."""
    split = tf.reshape(x, [-1, number, x.shape[1] // number, *x.shape[2:]])
    return [raised(split[:, i]) for i in range(number)]


@compilable
def mean_and_variance(positions: int, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance over positions, shapes as in `sums_over_positions`.

    Source: Chan et al. 1979: means and sums of squared deviations of parts, merged without cancellation. Of bfloat16 on
      TPUs: the mean square minus the square of the mean, in float32, as TensorFlow's own batch normalization there,
      since a convolution before sums both while it writes x. What cancels is about 1e-5 of the squared mean.
    """
    tree = _tree(positions, x)
    if x.dtype == tf.bfloat16 and "TPU" in _devices():
        mean, square = (tf.reduce_mean(value, positions, keepdims=True) for value in (raised(x), tf.square(raised(x))))
        return mean, tf.nn.relu(square - tf.square(mean))
    if tree is None:
        mean = tf.reduce_mean(raised(x), positions, keepdims=True)
        return mean, tf.reduce_mean(tf.math.squared_difference(raised(x), mean), positions, keepdims=True)
    level, values = _mean_and_spread(_parts(x, tree[0])), tree[0]
    for number in tree[1:]:
        parts = _parts(level, number)
        level = _mean_and_spread([part[:, :, 0] for part in parts], [part[:, :, 1] for part in parts], values)
        values *= number
    mean, spread = tf.unstack(level, axis=2)
    return mean, spread / values


def _mean_and_spread(means, spreads=(), values=1):
    """[B, P, 2, C]: mean and sum of squared deviations, from those of parts with so many values each."""
    mean = tf.add_n(means) / len(means)
    between = tf.add_n([tf.math.squared_difference(part, mean) for part in means])
    return tf.stack([mean, tf.add_n([values * between, *spreads])], 2)
