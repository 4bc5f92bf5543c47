"""What a layer of Keras is to the normalization before it: its activation, a layer that values pass, or a new start."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tensorflow as tf

NORMALIZATIONS = ("BatchNormalization", "SyncBatchNormalization", "GroupNormalization", "InstanceNormalization")
OWN_NORMALIZATIONS = ("batchnorm", "groupnorm", "instancenorm")  # in the class name of a user's own layer
ACTIVATIONS = [
    "relu",
    "relu6",
    "leaky_relu",
    "prelu",
    "thresholded_relu",
    "elu",
    "celu",
    "selu",
    "gelu",
    "swish",
    "simple_swish",
    "silu",
    "hard_swish",
    "hard_silu",
    "mish",
    "softplus",
    "softsign",
    "squareplus",
    "tanh",
    "hard_tanh",
]
# Nonlinear functions of each value that are not an activation alone, but may be a factor of one, as in x * sigmoid(x).
GATES = ["sigmoid", "hard_sigmoid", "log_sigmoid", "exp", "erf", "erfc", "minimum", "maximum", "clip", "clip_by_value"]
ARITHMETIC = [
    "add",
    "addv2",
    "subtract",
    "sub",
    "multiply",
    "mul",
    "truediv",
    "true_divide",
    "divide",
    "realdiv",
    "negative",
    "neg",
    "pow",
    "power",
    "square",
]
# Functions of one tensor that move, select or average values.
MOVES = [
    "cast",
    "identity",
    "reshape",
    "transpose",
    "permute_dims",
    "moveaxis",
    "swapaxes",
    "pad",
    "getitem",
    "strided_slice",
    "slice",
    "split",
    "expand_dims",
    "squeeze",
    "stop_gradient",
    "flatten",
    "concat",
    "concatenate",
    "stack",
    "tile",
    "repeat",
    "shape",
    "mean",
    "reduce_mean",
    "sum",
    "reduce_sum",
    "max",
    "reduce_max",
    "global_avg_pool",
    "avg_pool",
    "avg_pool2d",
    "average_pool",
    "max_pool",
    "max_pool2d",
    "resize",
    "depth_to_space",
    "space_to_depth",
    "roll",
    "flip",
    "reverse",
]
MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Dot", "Attention", "AdditiveAttention")


def key(name: str) -> str:
    """A name without case and underscores, in which the functions and classes of both Kerases agree."""
    return name.lower().replace("_", "")


ACTIVATION_KEYS = frozenset(map(key, ACTIVATIONS))
GATE_KEYS = frozenset(map(key, GATES))
ARITHMETIC_KEYS = frozenset(map(key, ARITHMETIC))
MOVE_KEYS = frozenset(map(key, MOVES))


def is_operation(layer: Any) -> bool:
    """Whether it is an operation of Keras 3, which is no layer."""
    return not isinstance(layer, tf.keras.layers.Layer)


def is_normalization(layer: Any) -> bool:
    """Whether it is a normalization of Keras or Addons, a subclass of one, or a user's own of such a name."""
    names = {entry.__name__ for entry in type(layer).__mro__}
    return bool(names & set(NORMALIZATIONS)) or any(word in key(type(layer).__name__) for word in OWN_NORMALIZATIONS)


def function_name(layer: Any) -> str | None:
    """The name of the function that a layer or operation applies; None for layers that are more than one function."""
    kind = type(layer).__name__
    if kind in ("Activation", "Lambda"):
        function = layer.activation if kind == "Activation" else layer.function
        while isinstance(function, functools.partial):
            function = function.func
        return getattr(function, "__name__", type(function).__name__)
    if kind == "TFOpLambda":
        return layer.get_config()["function"].rpartition(".")[2]
    if kind == "SlicingOpLambda":
        return "getitem"
    return kind if is_operation(layer) else None


def activation_name(layer: Any) -> str | None:
    """The name of the activation that a layer or operation is, also within TimeDistributed; None for anything else."""
    if isinstance(layer, tf.keras.layers.TimeDistributed):
        return activation_name(layer.layer)
    name = function_name(layer)
    names = [entry.__name__ for entry in type(layer).__mro__] if name is None else [name]
    return next((name for name in names if key(name) in ACTIVATION_KEYS), None)


def is_linear(layer: Any) -> bool:
    """Whether it is the activation of Keras that does nothing."""
    return type(layer).__name__ in ("Activation", "Identity") and function_name(layer) in (None, "linear", "identity")


def is_elementwise(layer: Any) -> bool:
    """Whether it is known to compute each value from the values at the same position."""
    name = function_name(layer) or type(layer).__name__
    if not is_operation(layer) and type(layer).__name__ in ("Add", "Subtract", "Multiply"):
        return True
    if function_name(layer) is None:
        return activation_name(layer) is not None
    return key(name) in ACTIVATION_KEYS | GATE_KEYS | ARITHMETIC_KEYS


def is_nonlinear(layer: Any) -> bool:
    """Whether a known elementwise layer or operation is more than arithmetic."""
    return activation_name(layer) is not None or key(function_name(layer) or "") in GATE_KEYS


def is_product(layer: Any) -> bool:
    """Whether it multiplies: the last step of an activation with a gate."""
    return key(function_name(layer) or type(layer).__name__) in ("multiply", "mul")


def has_parameters(layer: Any) -> bool:
    """Whether it has weights of floating point; states of random generators are integers."""
    return any(tf.as_dtype(weight.dtype).is_floating for weight in getattr(layer, "weights", ()))


def passes(layer: Any, sources: int) -> bool | None:
    """Whether values pass a layer without parameters, so that an activation behind it is still the normalization's.

    Args:
        layer: layer or operation that is no activation and no model.
        sources: how many layers it reads.

    Returns:
        True where values pass; False where something new begins, as at a convolution or a sum of branches; None where
        the function is unknown, and may be an activation.
    """
    name = function_name(layer)
    if is_linear(layer):
        return True
    if name is not None:
        if key(name) in MOVE_KEYS:
            return True
        if sources > 1:
            return False
        return True if type(layer).__name__ == "Lambda" and _is_linear_function(layer) else None
    if has_parameters(layer) or type(layer).__name__ in MERGES:
        return False
    if sources > 1:
        return type(layer).__name__ == "Concatenate"
    if type(layer).__name__ == "Softmax":
        return None
    ancestors = [entry for entry in type(layer).__mro__ if issubclass(entry, tf.keras.layers.Layer)]
    of_keras = [entry for entry in ancestors if entry.__module__.partition(".")[0] in ("keras", "tf_keras")]
    if len(of_keras) > 1 and of_keras[0].__name__ not in ("Layer", "Model", "Wrapper"):
        return True
    return True if _is_linear_function(layer) else None


def _is_linear_function(layer):
    """Whether f(-2 x) = -2 f(x) while not training, at values of a fixed seed, as of paddings, means and dropouts."""
    try:
        shape = [size or 4 for size in first_input(layer).shape]
        x = tf.constant(np.random.default_rng(0).normal(size=shape), first_input(layer).dtype)
        values, scaled = layer(x), layer(-2 * x)
        pairs = zip(tf.nest.flatten(values), tf.nest.flatten(scaled))
        return all(np.allclose(-2 * np.asarray(a, "float64"), np.asarray(b, "float64"), atol=1e-3) for a, b in pairs)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError, tf.errors.OpError):
        return False


def first_input(layer: Any) -> Any:
    """The symbolic tensor that a layer was first called with."""
    node = layer._inbound_nodes[0]
    return tf.nest.flatten(getattr(node, "keras_inputs", None) or node.input_tensors)[0]


def first_output(layer: Any) -> Any:
    """The symbolic tensor that a layer first returned."""
    return tf.nest.flatten(layer._inbound_nodes[0].outputs)[0]
