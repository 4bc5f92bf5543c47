"""Names of optimizers, as the configs of experiments write them, and the optimizers that they stand for."""

from __future__ import annotations

import tensorflow as tf

from tf_pixpro.optimization.lars import LARS

OPTIMIZERS: dict[str, type[tf.keras.optimizers.Optimizer]] = {
    "lars": LARS,
    "sgd": tf.keras.optimizers.SGD,
    "adam": tf.keras.optimizers.Adam,
    "adamw": tf.keras.optimizers.AdamW,
    "rmsprop": tf.keras.optimizers.RMSprop,
}
