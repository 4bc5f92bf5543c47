"""Random weights for parity tests: as a trained network might have them, the same for two networks."""

import contextlib

import numpy as np
import tensorflow as tf


@contextlib.contextmanager
def double_precision():
    """Models are built in float64, so that parity is exact to rounding."""
    tf.keras.backend.set_floatx("float64")
    tf.keras.mixed_precision.set_global_policy("float64")
    try:
        yield
    finally:
        tf.keras.backend.set_floatx("float32")
        tf.keras.mixed_precision.set_global_policy("float32")


def randomize(model, seed=0):
    """Draws kernels by their fan-in, gammas and variances around 1, betas and means around 0."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.name.startswith("count"):  # of the samples a preprocessing layer has seen
            continue
        kind = variable.name.split(":")[0].split("/")[-1]
        shape = tuple(variable.shape)
        if kind in ("gamma", "moving_variance", "variance", "v"):
            value = rng.uniform(0.5, 1.5, shape)
        elif kind in ("beta", "moving_mean", "mean", "bias"):
            value = rng.normal(0, 0.3, shape)
        else:
            fan_in = np.prod(shape[:-1]) if kind != "depthwise_kernel" else np.prod(shape[:2])
            value = rng.normal(0, np.sqrt(2 / fan_in), shape)
        variable.assign(value)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):  # preprocessing layers compute from their weights what they apply
            layer.finalize_state()


def copy_layers(source, target, renamed):
    """Copies weights layer by layer; `renamed` maps names of the target's layers with weights to layers of the source.

    Fails unless every variable of both networks takes part.
    """
    copied = 0
    for name, layer in renamed.items():
        target.get_layer(name).set_weights(layer.get_weights())
        copied += len(layer.get_weights())
    assert copied == len(target.weights) == len(source.weights), (copied, len(target.weights), len(source.weights))


def largest_error(found, wanted):
    """Largest difference over the largest wanted value."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    return np.abs(found - wanted).max() / np.abs(wanted).max()
