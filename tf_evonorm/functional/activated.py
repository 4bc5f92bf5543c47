"""Normalizations followed by an activation, each with one gradient of its own that keeps the input alone.

`y = activation((x - centre) * gamma / root + beta)`. As in the EvoNorms, counting a full-size tensor as 1, the forward
pass reads 2 and writes 1, the backward pass reads 4 and writes 1; the activation's slope is recomputed from the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_evonorm.functional.gradients import with_gradient
from tf_evonorm.functional.moments import flattened
from tf_evonorm.functional.reductions import compilable, compiles, mean_and_variance, raised, sums_over_positions
from tf_evonorm.functional.roots import Root, along, batch_root, group_root


def batch_norm_activated(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    activation: Callable,
    parameters: Sequence[tf.Tensor] = (),
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    synchronized: bool = False,
    compiled: bool | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """activation((x - mean) / sqrt(variance + epsilon) * gamma + beta) with moments of the batch.

    Args:
      x: [B, ..., C] (or [B, C, ...] with axis=1), any floating dtype, rank at least 2.
      gamma, beta: [C] float32 (float64 where x is).
      activation: an element-wise function of (z, *parameters), differentiable by TensorFlow; the same object at each
        call, since compiled loops are kept for it.
      parameters: [C] each, what the activation learns.
      axis: where the channels are, -1 or 1.
      epsilon: added to the variance, inside the root.
      synchronized: take the moments over all replicas.
      compiled: as in `evonorm_b`.

    Returns:
      (y of x's shape and dtype, mean [C], biased variance [C], number of values of each channel).
    """

    def measured(x, positions, compiled):
        mean, variance = mean_and_variance(compiled, (positions,), x)
        count = tf.cast(tf.shape(x)[positions], mean.dtype)
        return batch_root(mean, variance, count, synchronized, epsilon)

    return _activated(x, [gamma, beta, *parameters], activation, axis, measured, "batch", compiled)


def group_norm_activated(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    activation: Callable,
    parameters: Sequence[tf.Tensor] = (),
    *,
    groups: int,
    centred: bool = True,
    axis: int = -1,
    epsilon: float = 1e-5,
    compiled: bool | None = None,
) -> tf.Tensor:
    """activation((x - mean) / sqrt(variance + epsilon) * gamma + beta) with moments of groups of channels.

    Args:
      x, gamma, beta, activation, parameters, axis, epsilon, compiled: as in `batch_norm_activated`.
      groups: a divisor of C; C itself takes the moments of each sample and channel.
      centred: False takes the mean square in place of the variance and subtracts no mean.

    Returns:
      y of x's shape and dtype.
    """

    def measured(x, positions, compiled):
        return group_root(x, positions, groups, centred, epsilon, compiled)

    return _activated(x, [gamma, beta, *parameters], activation, axis, measured, f"group{groups}{centred}", compiled)[0]


def linear(z: tf.Tensor) -> tf.Tensor:
    """No activation."""
    return z


# Loops over full-size tensors; `given` is (centre or None, scale, beta, parameters of the activation).


def _standardized(x, centre, scale, beta):
    """(z before the activation, x without its centre)."""
    apart = x if centre is None else x - centre
    return apart * scale + beta, apart


@compilable
def _result(activation, x, given):
    *affine, parameters = given
    return tf.cast(activation(_standardized(raised(x), *affine)[0], *parameters), x.dtype)


@compilable
def _sums(activation, positions, x, dy, given):
    """Sums over positions: gradients of beta, of the scale, and of each parameter of the activation."""
    *affine, parameters = given

    def slopes(x, dy):
        z, apart = _standardized(x, *affine)
        dz, *rest = _through(activation, z, parameters, dy)
        return dz, dz * apart, *rest

    return tuple(sums_over_positions(slopes, positions, x, dy))


@compilable
def _input_gradient(activation, x, dy, given, pull, push):
    *affine, parameters = given
    z, apart = _standardized(raised(x), *affine)
    dx = _through(activation, z, parameters, raised(dy))[0] * affine[1] + pull * apart
    return tf.cast(dx if push is None else dx + push, x.dtype)


def _through(activation, z, parameters, dy):
    """Gradients of the activation in z and in each parameter, all of z's shape."""
    sources = [z, *(parameter + tf.zeros_like(z) for parameter in parameters)]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        y = activation(*sources)
    return tape.gradient(y, sources, dy, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _activated(x, vectors, activation, axis, measured, kind, compiled):
    """(y, mean [C], variance [C], number of values); the last three are of use for a batch alone."""
    flat, positions = flattened(x, axis)
    if compiled is None:
        compiled = compiles(f"{kind} {getattr(activation, '__name__', '')}", flat)
    shape, batch = along(positions), kind == "batch"

    def normalized(x, *vectors):
        gamma, beta, *parameters = (tf.reshape(vector, shape) for vector in vectors)
        root: Root = measured(x, positions, compiled)
        given = (root.centre, gamma / root.value, beta, tuple(parameters))
        y = _result(compiled, (activation,), x, given)

        def gradient(dy, dmean, dvariance, _):
            shift, scale, *rest = _sums(compiled, (activation, positions), x, dy, given)
            of_mean, of_variance = ([tf.reshape(d, shape)] if batch else [] for d in (dmean, dvariance))
            pull, _ = root.pull(-gamma * scale / tf.square(root.value), *of_variance)
            push = None if root.centre is None else root.pull_centre(-shift * given[1], *of_mean)
            dx = _input_gradient(compiled, (activation,), x, dy, given, pull, push)
            return [dx, *(tf.reduce_sum(d, [0, positions]) for d in (scale / root.value, shift, *rest))]

        centre = tf.zeros_like(root.variance) if root.centre is None else root.centre
        mean, variance = (tf.reshape(value[:1], [-1]) for value in (centre, root.variance))
        return (y, mean, variance, tf.cast(root.count, mean.dtype)), gradient

    y, mean, variance, values = with_gradient(normalized, flat, *(tf.convert_to_tensor(v) for v in vectors))
    return tf.reshape(y, tf.shape(x)), mean, variance, values
