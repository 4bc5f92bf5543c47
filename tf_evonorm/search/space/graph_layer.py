"""A graph of primitives as a Keras layer."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tf_evonorm import found, functional
from tf_evonorm.layers import named
from tf_evonorm.layers.norm_act import (
    OPTIONS,
    Constraint,
    Initializer,
    NormAct,
    Regularizer,
    arguments,
    check_momentum,
    whole,
)
from tf_evonorm.search.space import primitives
from tf_evonorm.search.space.graph import Graph

_LEARNED = {"v0": 2, "v1": 3}  # numbers of the nodes
_SETTINGS = ("groups", "momentum", "synchronized", "division_epsilon", "logarithm_epsilon", "sign_of_zero")
_OWN = (*_SETTINGS, *(f"{vector}_{option}" for vector in _LEARNED for option in OPTIONS))


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class GraphLayer(NormAct):
    """graph(x, v0, v1) * gamma + beta.

    Args:
      graph: a `Graph`, or its text or JSON.
      groups: number of groups of neighbouring channels, or "auto": 32, lowered until it divides the channels. Read
        where the graph has a live group node.
      momentum: share of the moving statistics that stays at each training call. There is one for each live batch node:
        of its mean, its mean square (rms) or its variance (std), which inference uses.
      synchronized: take batch statistics over all replicas of the strategy.
      division_epsilon, logarithm_epsilon, sign_of_zero: see `primitives.Protection`; its `moments` is `epsilon`.
      v0_initializer, v0_regularizer, v0_constraint, v1_...: of v0 and v1, which are there where the graph reads them.
      apply_act: False leaves gamma * x + beta alone.
      axis, epsilon, affine, beta_..., gamma_..., trainable, dtype, name, input_shape: as in `NormAct`.

    Input and output shape: [B, ..., C] floating point of rank 2 or more, any size but C unknown. Inside all is float32.

    Raises:
      Mistake: a wrong graph, groups that do not divide the channels, momentum outside 0..1.

    Source: EvoNorm paper, section 3 and Table 1: the affine, and that averages move of what stands inside the root.
      Momentum and first values of variances as in the authors' layers; a moving mean starts at 0. The gradient of
      sqrt(|x|) at 0 is 0 here.
    """

    learns_from_batches = True

    def __init__(
        self,
        graph: Graph | str | dict,
        groups: int | str = "auto",
        momentum: float = 0.9,
        synchronized: bool = False,
        division_epsilon: float = primitives.USUAL.division,
        logarithm_epsilon: float = primitives.USUAL.logarithm,
        sign_of_zero: float = primitives.USUAL.sign_of_zero,
        v0_initializer: Initializer = "zeros",
        v0_regularizer: Regularizer = None,
        v0_constraint: Constraint = None,
        v1_initializer: Initializer = "ones",
        v1_regularizer: Regularizer = None,
        v1_constraint: Constraint = None,
        axis: int = -1,
        epsilon: float = 1e-5,
        apply_act: bool = True,
        affine: bool = True,
        beta_initializer: Initializer = "zeros",
        gamma_initializer: Initializer = "ones",
        beta_regularizer: Regularizer = None,
        gamma_regularizer: Regularizer = None,
        beta_constraint: Constraint = None,
        gamma_constraint: Constraint = None,
        trainable: bool = True,
        dtype: Any = None,
        name: str | None = None,
        input_shape: Sequence[int | None] | None = None,
    ):
        super().__init__(**arguments(locals(), "graph", *_OWN))
        self.graph = Graph.read(graph)
        self.groups, self.momentum, self.synchronized = whole(groups), check_momentum(momentum), bool(synchronized)
        self.division_epsilon, self.logarithm_epsilon = division_epsilon, logarithm_epsilon
        self.sign_of_zero = sign_of_zero
        self.describe("v0", v0_initializer, v0_regularizer, v0_constraint)
        self.describe("v1", v1_initializer, v1_regularizer, v1_constraint)

    def build(self, input_shape):
        super().build(input_shape)
        if not self.apply_act:
            return
        grouped = any(operation.endswith("_group") for _, operation, _ in self.graph.steps)
        self.fitting_groups = functional.fitting_groups(self.groups, self.channels) if grouped else 1
        for vector, number in _LEARNED.items():
            if number in self.graph.live:
                setattr(self, vector, self.channel_weight(vector))
        self.moving = {}
        for number in self.graph.batch_nodes:
            operation = self.graph.operation(number)
            first = "zeros" if operation == "mean_batch" else "ones"
            name = f"moving_{operation}_{number}"
            self.moving[str(number)] = self.moving_weight(name, first)
            setattr(self, name, self.moving[str(number)])  # checkpoints under Keras 3 hold attributes, but no dict

    def normalized(self, x: tf.Tensor, training: bool, weights: tf.Tensor | None = None) -> tf.Tensor:
        dtype, rank = x.dtype, len(x.shape)
        y = functional.raised(x)
        first = self.axis not in (-1, rank - 1)
        if first:
            y = tf.transpose(y, [0, *range(2, rank), 1])
        if self.apply_act:
            y = self._output(y, training, weights)
        y = y * tf.convert_to_tensor(self.gamma) + tf.convert_to_tensor(self.beta)
        if first:
            y = tf.transpose(y, [0, rank - 1, *range(1, rank - 1)])
        return tf.cast(y, dtype)

    def _output(self, x, training, weights):
        rank = len(x.shape)
        samples = _Samples.of(x, weights)
        values = {0: x, 1: tf.zeros([1] * rank, x.dtype)}
        for vector, number in _LEARNED.items():
            if number in self.graph.live:
                values[number] = tf.reshape(getattr(self, vector), [1] * (rank - 1) + [-1])
        protection = primitives.Protection(
            self.division_epsilon, self.logarithm_epsilon, self.epsilon, self.sign_of_zero
        )
        for number, operation, inputs in self.graph.steps:
            name, over = primitives.split(operation)
            read = [values[i] for i in inputs]
            if over is None:
                values[number] = _ELEMENTWISE[name](protection, *read)
            else:
                moment = self._moment(number, name, over, read[0], samples, training)
                values[number] = moment if name == "mean" else tf.sqrt(moment + protection.moments)
        y = values[self.graph.live[-1]]
        if y.shape.as_list() != x.shape.as_list():  # an axis that the graph has reduced has size 1
            y = tf.broadcast_to(y, tf.shape(x))
            y.set_shape(x.shape)
        return y

    def _moment(self, number, name, over, value, samples, training):
        """Mean, mean square or variance, to be broadcast against x."""
        moving = self.moving[str(number)] if over == "batch" else None
        if moving is not None and not training:
            return tf.reshape(moving, [1] * (len(value.shape) - 1) + [-1])
        mean = functools.partial(self._mean, over=over, samples=samples)
        if name == "std":
            value = value - mean(value)
        moment = mean(value if name == "mean" else tf.square(value))
        if moving is not None:
            now = tf.broadcast_to(tf.reshape(tf.stop_gradient(moment), [-1]), [self.channels])
            count = functional.all_sum(samples.count) if self.synchronized else samples.count
            self.move(moving, now, count, self.momentum)
        return moment

    def _mean(self, value, over, samples):
        rank = len(value.shape)
        if over == "batch":
            mean = samples.mean(value, list(range(rank - 1)), weighted=True)
            return self._over_replicas(mean, samples.count) if self.synchronized else mean
        mean = samples.mean(value, list(range(1, rank - 1)), weighted=False)
        if over == "layer":
            return tf.reduce_mean(mean, rank - 1, keepdims=True)
        if over == "instance" or mean.shape[-1] == 1:
            return mean
        size = self.channels // self.fitting_groups
        split = tf.reshape(mean, [-1, *[1] * (rank - 2), self.fitting_groups, size])
        return tf.repeat(tf.reduce_mean(split, -1), size, axis=-1)

    def _over_replicas(self, mean, count):
        sums = functional.all_sum(tf.concat([tf.reshape(mean * count, [-1]), [count]], 0))
        return tf.reshape(sums[:-1] / tf.maximum(sums[-1], 1), mean.shape)

    def get_config(self):
        return {
            **super().get_config(),
            "graph": str(self.graph),
            **{name: getattr(self, name) for name in _SETTINGS},
        }


class _Samples(NamedTuple):
    """What statistics are taken over: a number of positions, and their weights [B, ..., 1] where a mask hides some."""

    count: tf.Tensor
    weights: tf.Tensor | None

    @classmethod
    def of(cls, x: tf.Tensor, weights: tf.Tensor | None) -> _Samples:
        shape = tf.shape(x)[:-1]
        if weights is None:
            return cls(tf.cast(tf.reduce_prod(shape), x.dtype), None)
        weights = tf.broadcast_to(weights, tf.concat([shape, [1]], 0))
        return cls(tf.reduce_sum(weights), weights)

    def mean(self, value: tf.Tensor, axes: list[int], weighted: bool) -> tf.Tensor:
        """The mean of a node's value over axes, which it may have at size 1; 0 where there is nothing."""
        if self.weights is None or not weighted:
            count = tf.reduce_prod([tf.shape(value)[axis] for axis in axes]) if axes else 1
            return tf.reduce_sum(value, axes, keepdims=True) / tf.cast(tf.maximum(count, 1), value.dtype)
        return tf.reduce_sum(value * self.weights, axes, keepdims=True) / tf.maximum(self.count, 1)


def layer_from_graph(graph: Graph | str | os.PathLike, **options: Any) -> Callable[..., tf.keras.layers.Layer]:
    """What a search has found, for `norm_act=`.

    Args:
      graph: path of a JSON file that a search has written; "found:NAME" of `tf_evonorm.found`; or a `Graph`.
      **options: of `GraphLayer`. A found layer has those with which it was measured, unless they are given here.

    Returns:
      A callable returning fresh layers: `resnet(50, norm_act=layer_from_graph("best.json"))`; called by itself, a
        layer.

    Raises:
      Mistake: the file holds no graph, or there is no found layer of this name.
      FileNotFoundError: there is no file.
    """
    if isinstance(graph, str) and graph.startswith(found.PREFIX):
        layer = found.read(graph)
        graph, options = Graph.read(layer.graph), {**layer.options, **options}
    return functools.partial(GraphLayer, graph if isinstance(graph, Graph) else Graph.load(graph), **options)


def found_layers() -> dict[str, Callable[..., tf.keras.layers.Layer]]:
    """Returns "found:NAME" -> a callable returning fresh layers, of all layers of `tf_evonorm.found`."""
    return {f"{found.PREFIX}{name}": layer_from_graph(f"{found.PREFIX}{name}") for name in found.names()}


named.LAYERS.update(found_layers())  # the table of names lies below this file


def _divided(protection, x, y):
    sign = tf.where(tf.equal(y, 0), tf.cast(protection.sign_of_zero, y.dtype), tf.sign(y))
    return x / (y + protection.division * sign)


def _signed_root(_, x):
    zero = tf.equal(x, 0)
    return tf.where(zero, tf.zeros_like(x), tf.sign(x) * tf.sqrt(tf.abs(tf.where(zero, tf.ones_like(x), x))))


_ELEMENTWISE = {
    "add": lambda _, x, y: x + y,
    "mul": lambda _, x, y: x * y,
    "div": _divided,
    "max": lambda _, x, y: tf.maximum(x, y),
    "neg": lambda _, x: -x,
    "sigmoid": lambda _, x: tf.sigmoid(x),
    "tanh": lambda _, x: tf.tanh(x),
    "exp": lambda _, x: tf.exp(x),
    "log": lambda protection, x: tf.sign(x) * tf.math.log(tf.abs(x) + protection.logarithm),
    "abs": lambda _, x: tf.abs(x),
    "square": lambda _, x: tf.square(x),
    "sqrt": _signed_root,
}
