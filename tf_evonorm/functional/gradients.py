"""Gradients written by hand whose traced graphs can be freed."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

try:
    from tensorflow.python.eager import record
    from tensorflow.python.framework.ops import gradient_registry
except ImportError:  # a TensorFlow that keeps them elsewhere: tf.custom_gradient serves, and keeps its graphs
    record = gradient_registry = None

PREFIX = "tf_evonorm-gradient-"
_numbers = itertools.count()


def with_gradient(function: Callable[..., tuple[Sequence[tf.Tensor], Callable]], *arguments: tf.Tensor) -> Sequence:
    """The results of a function, differentiated by the gradient that it returns.

    `tf.custom_gradient` registers a gradient for each trace, for the life of the process, and with it the traced graph
    (TensorFlow issues 27492 and 97697). Here the graph holds the gradient, the registry holds a weak reference, and the
    entry goes with the graph.

    Args:
      function: of the arguments; returns (tuple of tensors, gradient function of their gradients that returns a tuple
        or list of the gradients of the arguments).
      *arguments: tensors.

    Returns:
      The tuple of tensors.
    """
    if tf.executing_eagerly() or record is None:
        return tf.custom_gradient(function)(*arguments)
    results, gradient = function(*arguments)
    count = len(results)

    def padded(*gradients):
        return [None] * count + list(gradient(*gradients[:count]))

    graph, inputs = tf.compat.v1.get_default_graph(), [*results, *arguments]
    with graph.gradient_override_map({"IdentityN": _registered(graph, padded)}):
        outputs = tf.raw_ops.IdentityN(input=inputs)
    record.record_operation("tf_evonorm", outputs, inputs, padded)
    return tuple(outputs[:count])


def _registered(graph: Any, gradient: Callable) -> str:
    """Registers a gradient that lives as long as its graph; returns its name."""
    name = f"{PREFIX}{next(_numbers)}"
    if not hasattr(graph, "_tf_evonorm_gradients"):
        graph._tf_evonorm_gradients = {}
    graph._tf_evonorm_gradients[name] = gradient
    reference = weakref.ref(graph)

    @tf.RegisterGradient(name)
    def registered(_, *gradients):
        return reference()._tf_evonorm_gradients[name](*gradients)

    weakref.finalize(graph, gradient_registry._registry.pop, name, None).atexit = False
    return name
