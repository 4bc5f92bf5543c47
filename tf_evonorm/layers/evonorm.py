"""The six EvoNorm layers, and which of their variables weight decay leaves alone."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_evonorm import functional
from tf_evonorm.layers.norm_act import OPTIONS, NormAct


class _EvoNorm(NormAct):
    """What the six share: their number, the affine form, and whether XLA compiles the formula."""

    learned = False

    def __init__(self, jit_compile=None, **kwargs):
        v = {"initializer": "ones"}
        if self.learned:
            v |= {option: kwargs.pop(f"v_{option}") for option in OPTIONS if f"v_{option}" in kwargs}
        super().__init__(**kwargs)
        self.jit_compile = jit_compile
        if self.learned:
            self.describe("v", **v)

    def build(self, input_shape):
        super().build(input_shape)
        if self.learned and self.apply_act:
            self.v = self.channel_weight("v")

    def normalized(self, x, training):
        if not self.apply_act:
            gamma, beta = (self.along_channels(vector, len(x.shape)) for vector in (self.gamma, self.beta))
            return tf.cast(functional.raised(x) * gamma + beta, x.dtype)
        compiled = self.jit_compile if training or self.jit_compile is not None else False
        parameters = [self.gamma, self.beta] + ([self.v] if self.learned else [])
        return self.formula(x, [tf.convert_to_tensor(p) for p in parameters], training, compiled)

    def get_config(self):
        return {**super().get_config(), "jit_compile": self.jit_compile}


class _EvoNormB(_EvoNorm):
    """The series with batch statistics: a moving variance, which inference uses."""

    def __init__(
        self,
        momentum: float = 0.9,
        synchronized: bool = False,
        moving_variance_initializer: str | tf.keras.initializers.Initializer = "ones",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in 0..1. Received momentum={momentum}. The authors' is 0.9.")
        self.momentum, self.synchronized = momentum, synchronized
        self.moving_variance_initializer = tf.keras.initializers.get(moving_variance_initializer)

    def build(self, input_shape):
        super().build(input_shape)
        if self.apply_act:
            self.moving_variance = self.moving_weight("moving_variance", self.moving_variance_initializer)

    def formula(self, x, parameters, training, compiled):
        y, variance = functional.evonorm_b(
            type(self).kind,
            x,
            *parameters,
            axis=self.axis,
            epsilon=self.epsilon,
            variance=None if training else tf.convert_to_tensor(self.moving_variance),
            synchronized=self.synchronized,
            compiled=compiled,
        )
        if training:
            moved = self.momentum * self.moving_variance + (1 - self.momentum) * tf.stop_gradient(variance)
            self.moving_variance.assign(moved)
        return y

    def get_config(self):
        config = {"momentum": self.momentum, "synchronized": self.synchronized}
        config["moving_variance_initializer"] = tf.keras.initializers.serialize(self.moving_variance_initializer)
        return {**super().get_config(), **config}


class _EvoNormS(_EvoNorm):
    """The series with statistics of one sample: any batch size, nothing moves, training and inference alike."""

    def __init__(self, groups=32, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups

    def build(self, input_shape):
        super().build(input_shape)
        self.fitting_groups = functional.fitting_groups(self.groups, self.channels) if self.apply_act else None

    def formula(self, x, parameters, training, compiled):
        options = {"groups": self.fitting_groups, "axis": self.axis, "epsilon": self.epsilon, "compiled": compiled}
        return functional.evonorm_s(type(self).kind, x, *parameters, **options)

    def get_config(self):
        return {**super().get_config(), "groups": self.groups}


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class EvoNormB0(_EvoNormB):
    """x / max(sqrt(batch variance + epsilon), v * x + sqrt(instance variance + epsilon)) * gamma + beta.

    Args:
      momentum: share of the moving variance that stays at each training call.
      synchronized: take the batch variance over all replicas of the strategy; otherwise each replica takes its own, and
        the moving variance is the mean of theirs.
      moving_variance_initializer: of the moving variance.
      v_initializer, v_regularizer, v_constraint: of v.
      jit_compile: whether XLA compiles the formula's loops. None: while training on CPUs, where height and width are known.
      **kwargs: axis=-1 (or 1, channels first), epsilon=1e-5, apply_act=True (False: gamma * x + beta alone, without
        statistics), beta_initializer, gamma_initializer, regularizers and constraints, name, dtype, trainable (a frozen
        layer uses the moving variance, as Keras' BatchNormalization does).

    Input and output shape: [B, ..., C] floating point of rank 2 or more, any size but C unknown. Statistics and variables
    are float32 under float16 and bfloat16 policies.

    Raises:
      ValueError: an axis that is neither the last nor the one after the batch, unknown channels, momentum outside 0..1.

    Source: EvoNorm paper, Table 2; epsilon, momentum and the affine form as in the authors' code (tensorflow/tpu), which
      never synchronizes. Variances divide by n, in the moving variance too.
    """

    kind, learned = "b0", True


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class EvoNormB1(_EvoNormB):
    """x / max(sqrt(batch variance + epsilon), (x + 1) * sqrt(instance mean of x**2 + epsilon)) * gamma + beta.

    Args and shapes: as `EvoNormB0`, without v.

    Source: EvoNorm paper, Table 2. The authors released no code for it; epsilon stands where Table 1 has it.
    """

    kind = "b1"


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class EvoNormB2(_EvoNormB):
    """x / max(sqrt(batch variance + epsilon), sqrt(instance mean of x**2 + epsilon) - x) * gamma + beta.

    Args and shapes: as `EvoNormB0`, without v.

    Source: EvoNorm paper, Table 2. The authors released no code for it; epsilon stands where Table 1 has it.
    """

    kind = "b2"


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class EvoNormS0(_EvoNormS):
    """x * sigmoid(v * x) / sqrt(group variance + epsilon) * gamma + beta.

    Args:
      groups: number of groups of neighbouring channels, or "auto": 32, lowered until it divides the channels.
      v_initializer, v_regularizer, v_constraint: of v.
      jit_compile: whether XLA compiles the formula's loops. None: while training on CPUs, where height and width are known.
      **kwargs: axis=-1 (or 1, channels first), epsilon=1e-5, apply_act=True (False: gamma * x + beta alone, without
        statistics), beta_initializer, gamma_initializer, regularizers and constraints, name, dtype, trainable.

    Input and output shape: [B, ..., C] floating point of rank 2 or more, any size but C unknown. Statistics and variables
    are float32 under float16 and bfloat16 policies.

    Raises:
      ValueError: groups that do not divide the channels, an axis that is neither the last nor the one after the batch,
        unknown channels.

    Source: EvoNorm paper, Table 3; epsilon and the affine form as in the authors' code (tensorflow/tpu), which lowers the
      number of groups without a word (groups="auto").
    """

    kind, learned = "s0", True


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class EvoNormS1(_EvoNormS):
    """x * sigmoid(x) / sqrt(group variance + epsilon) * gamma + beta.

    Args and shapes: as `EvoNormS0`, without v.

    Source: EvoNorm paper, Table 3. The authors released no code for it; epsilon stands where Table 1 has it.
    """

    kind = "s1"


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class EvoNormS2(_EvoNormS):
    """x * sigmoid(x) / sqrt(group mean of x**2 + epsilon) * gamma + beta.

    Args and shapes: as `EvoNormS0`, without v.

    Source: EvoNorm paper, Table 3. The authors released no code for it; epsilon stands where Table 1 has it.
    """

    kind = "s2"


def exclude_from_weight_decay(
    model: tf.keras.layers.Layer, optimizer: tf.keras.optimizers.Optimizer | None = None
) -> list:
    """The trainable variables of all normalizations in a model (gamma, beta, v, tau), which are not decayed.

    Args:
      model: a built Keras model or layer.
      optimizer: a Keras optimizer that has not been built yet; it is told.

    Returns:
      The variables, for `optimizer.exclude_from_weight_decay(var_list=...)` or a mask of one's own.

    Source: the authors' code decays no variable of batch normalization or EvoNorm, and everything else.
    """
    keras = tf.keras.layers
    kinds = (NormAct, keras.BatchNormalization, keras.LayerNormalization, keras.GroupNormalization)
    kept = [v for layer in model._flatten_layers() if isinstance(layer, kinds) for v in layer.trainable_weights]
    if optimizer is not None:
        optimizer.exclude_from_weight_decay(var_list=kept)
    return kept
