"""Which variables of a model weight decay leaves alone."""

from __future__ import annotations

import tensorflow as tf

from tf_evonorm.layers.norm_act import NormAct
from tf_evonorm.mistakes import Mistake


def exclude_from_weight_decay(
    model: tf.keras.layers.Layer, optimizer: tf.keras.optimizers.Optimizer | None = None
) -> list:
    """The trainable variables of all normalizations in a model (gamma, beta, v, tau), which are not decayed.

    Args:
      model: a built Keras model or layer.
      optimizer: a Keras optimizer that has not been built yet, or a `LossScaleOptimizer` of one; it is set to leave
        them.

    Returns:
      The variables, for `optimizer.exclude_from_weight_decay(var_list=...)` or for a mask of your own.

    Raises:
      Mistake: the optimizer cannot leave variables out.

    Source: the authors' code decays no variable of batch normalization or EvoNorm, and everything else.
    """
    keras = tf.keras.layers
    kinds = (NormAct, keras.BatchNormalization, keras.LayerNormalization, keras.GroupNormalization)
    kept = [v for layer in model._flatten_layers() if isinstance(layer, kinds) for v in layer.trainable_weights]
    if optimizer is None:
        return kept
    while hasattr(optimizer, "inner_optimizer"):  # a loss scale hands gradients on, not what is excluded
        optimizer = optimizer.inner_optimizer
    if not hasattr(optimizer, "exclude_from_weight_decay"):
        raise Mistake(
            f"optimizer must be a Keras optimizer with exclude_from_weight_decay. Received {type(optimizer).__name__}. "
            "Leave it out, and give the returned variables to the optimizer in its own way."
        )
    optimizer.exclude_from_weight_decay(var_list=kept)
    return kept
