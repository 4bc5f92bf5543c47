"""The six EvoNorm layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_evonorm import functional
from tf_evonorm.layers.norm_act import (
    Constraint,
    Initializer,
    NormAct,
    Regularizer,
    arguments,
    check_momentum,
    keras_object,
    whole,
)


class _EvoNorm(NormAct):
    """What the six share: their formula's name, the affine form, and whether XLA compiles the formula."""

    kind: str
    learned = False  # whether there is a v

    def __init__(self, jit_compile=None, **options):
        super().__init__(**options)
        self.jit_compile = None if jit_compile is None else bool(jit_compile)

    def build(self, input_shape):
        super().build(input_shape)
        if self.learned and self.apply_act:
            self.v = self.channel_weight("v")

    def normalized(self, x, training, weights=None):
        if not self.apply_act:
            gamma, beta = (self.along_channels(vector, len(x.shape)) for vector in (self.gamma, self.beta))
            return tf.cast(functional.raised(x) * gamma + beta, x.dtype)
        compiled = self.jit_compile if training or self.jit_compile is not None else False
        parameters = [self.gamma, self.beta] + ([self.v] if self.learned else [])
        return self.formula(x, [tf.convert_to_tensor(p) for p in parameters], training, compiled, weights)

    def get_config(self):
        return {**super().get_config(), "jit_compile": self.jit_compile}


class _EvoNormB(_EvoNorm):
    """The series with batch statistics: a moving variance, which inference uses."""

    learns_from_batches = True

    def __init__(
        self,
        momentum: float = 0.9,
        synchronized: bool = False,
        moving_variance_initializer: Initializer = "ones",
        jit_compile: bool | None = None,
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
        super().__init__(**arguments(locals(), "momentum", "synchronized", "moving_variance_initializer"))
        self.momentum, self.synchronized = check_momentum(momentum), bool(synchronized)
        self.moving_variance_initializer = keras_object("moving_variance_initializer", moving_variance_initializer)

    def build(self, input_shape):
        super().build(input_shape)
        if self.apply_act:
            self.moving_variance = self.moving_weight("moving_variance", self.moving_variance_initializer)

    def formula(self, x, parameters, training, compiled, weights):
        fixed = {"axis": self.axis, "epsilon": self.epsilon, "compiled": compiled}
        if not training:
            given = tf.convert_to_tensor(self.moving_variance)
            return functional.evonorm_b(self.kind, x, *parameters, variance=given, **fixed)[0]
        if weights is None:
            y, variance, values = functional.evonorm_b_in_training(
                self.kind, x, parameters, synchronized=self.synchronized, **fixed
            )
        else:
            y, variance, values = functional.masked_evonorm_b(
                self.kind, x, weights, parameters, epsilon=self.epsilon, synchronized=self.synchronized
            )
        self.move(self.moving_variance, variance, values, self.momentum)
        return y

    def get_config(self):
        config = {"momentum": self.momentum, "synchronized": self.synchronized}
        config["moving_variance_initializer"] = tf.keras.initializers.serialize(self.moving_variance_initializer)
        return {**super().get_config(), **config}


class _EvoNormS(_EvoNorm):
    """The series with statistics of one sample: any batch size, nothing moves, training and inference alike."""

    def __init__(
        self,
        groups: int | str = 32,
        jit_compile: bool | None = None,
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
        super().__init__(**arguments(locals(), "groups"))
        self.groups = whole(groups)

    def build(self, input_shape):
        super().build(input_shape)
        self.fitting_groups = functional.fitting_groups(self.groups, self.channels) if self.apply_act else None

    def formula(self, x, parameters, training, compiled, weights):
        options = {"groups": self.fitting_groups, "axis": self.axis, "epsilon": self.epsilon, "compiled": compiled}
        return functional.evonorm_s(self.kind, x, *parameters, **options)

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
      jit_compile: whether XLA compiles the formula's loops. None: while training on CPUs or GPUs, where height
        and width are known; in eager calls for sizes that come back, and a few of them. True compiles and keeps every
        size.
      apply_act: False leaves gamma * x + beta alone, without statistics.
      trainable: a frozen layer uses the moving variance, as Keras' BatchNormalization does.
      axis, epsilon, affine, beta_..., gamma_..., dtype, name, input_shape: as in `NormAct`.

    Moving variance: a batch without samples, as the last one of a replica may be, does not move it.

    Input and output shape: [B, ..., C] floating point of rank 2 or more, any size but C unknown. Statistics and
      variables are float32 under float16 and bfloat16 policies.

    Raises:
      Mistake: an axis that is neither the last nor the one after the batch, unknown channels, momentum outside 0..1.

    Source: EvoNorm paper, Table 2; epsilon, momentum and the affine form as in the authors' code (tensorflow/tpu),
      which never synchronizes. Variances divide by n, in the moving variance too.
    """

    kind, learned = "b0", True

    def __init__(
        self,
        momentum: float = 0.9,
        synchronized: bool = False,
        moving_variance_initializer: Initializer = "ones",
        jit_compile: bool | None = None,
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
        v_initializer: Initializer = "ones",
        v_regularizer: Regularizer = None,
        v_constraint: Constraint = None,
        trainable: bool = True,
        dtype: Any = None,
        name: str | None = None,
        input_shape: Sequence[int | None] | None = None,
    ):
        super().__init__(**arguments(locals(), "v_initializer", "v_regularizer", "v_constraint"))
        self.describe("v", v_initializer, v_regularizer, v_constraint)


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class EvoNormB1(_EvoNormB):
    """x / max(sqrt(batch variance + epsilon), (x + 1) * sqrt(instance mean of x**2 + epsilon)) * gamma + beta.

    Args:
      momentum: share of the moving variance that stays at each training call.
      synchronized: take the batch variance over all replicas of the strategy; otherwise each replica takes its own, and
        the moving variance is the mean of theirs.
      moving_variance_initializer: of the moving variance.
      jit_compile: whether XLA compiles the formula's loops; None decides as `EvoNormB0` says.
      apply_act: False leaves gamma * x + beta alone, without statistics.
      trainable: a frozen layer uses the moving variance, as Keras' BatchNormalization does.
      axis, epsilon, affine, beta_..., gamma_..., dtype, name, input_shape: as in `NormAct`. There is no v.

    Input and output shape: [B, ..., C] floating point of rank 2 or more, any size but C unknown. Statistics and
      variables are float32 under float16 and bfloat16 policies.

    Raises:
      Mistake: an axis that is neither the last nor the one after the batch, unknown channels, momentum outside 0..1.

    Source: EvoNorm paper, Table 2. The authors released no code for it; epsilon stands where Table 1 has it.
    """

    kind = "b1"


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class EvoNormB2(_EvoNormB):
    """x / max(sqrt(batch variance + epsilon), sqrt(instance mean of x**2 + epsilon) - x) * gamma + beta.

    Args:
      momentum: share of the moving variance that stays at each training call.
      synchronized: take the batch variance over all replicas of the strategy; otherwise each replica takes its own, and
        the moving variance is the mean of theirs.
      moving_variance_initializer: of the moving variance.
      jit_compile: whether XLA compiles the formula's loops; None decides as `EvoNormB0` says.
      apply_act: False leaves gamma * x + beta alone, without statistics.
      trainable: a frozen layer uses the moving variance, as Keras' BatchNormalization does.
      axis, epsilon, affine, beta_..., gamma_..., dtype, name, input_shape: as in `NormAct`. There is no v.

    Input and output shape: [B, ..., C] floating point of rank 2 or more, any size but C unknown. Statistics and
      variables are float32 under float16 and bfloat16 policies.

    Raises:
      Mistake: an axis that is neither the last nor the one after the batch, unknown channels, momentum outside 0..1.

    Source: EvoNorm paper, Table 2. The authors released no code for it; epsilon stands where Table 1 has it.
    """

    kind = "b2"


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class EvoNormS0(_EvoNormS):
    """x * sigmoid(v * x) / sqrt(group variance + epsilon) * gamma + beta.

    Args:
      groups: number of groups of neighbouring channels, or "auto": 32, lowered until it divides the channels.
      v_initializer, v_regularizer, v_constraint: of v.
      jit_compile: whether XLA compiles the formula's loops. None: while training on CPUs or GPUs, where height
        and width are known; in eager calls for sizes that come back, and a few of them. True compiles and keeps every
        size.
      apply_act: False leaves gamma * x + beta alone, without statistics.
      axis, epsilon, affine, beta_..., gamma_..., trainable, dtype, name, input_shape: as in `NormAct`.

    Input and output shape: [B, ..., C] floating point of rank 2 or more, any size but C unknown. Statistics and
      variables are float32 under float16 and bfloat16 policies.

    Raises:
      Mistake: groups that do not divide the channels, an axis that is neither the last nor the one after the batch,
        unknown channels.

    Source: EvoNorm paper, Table 3; epsilon and the affine form as in the authors' code (tensorflow/tpu), which lowers
      the number of groups without a word (groups="auto").
    """

    kind, learned = "s0", True

    def __init__(
        self,
        groups: int | str = 32,
        jit_compile: bool | None = None,
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
        v_initializer: Initializer = "ones",
        v_regularizer: Regularizer = None,
        v_constraint: Constraint = None,
        trainable: bool = True,
        dtype: Any = None,
        name: str | None = None,
        input_shape: Sequence[int | None] | None = None,
    ):
        super().__init__(**arguments(locals(), "v_initializer", "v_regularizer", "v_constraint"))
        self.describe("v", v_initializer, v_regularizer, v_constraint)


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class EvoNormS1(_EvoNormS):
    """x * sigmoid(x) / sqrt(group variance + epsilon) * gamma + beta.

    Args:
      groups: number of groups of neighbouring channels, or "auto": 32, lowered until it divides the channels.
      jit_compile: whether XLA compiles the formula's loops; None decides as `EvoNormS0` says.
      apply_act: False leaves gamma * x + beta alone, without statistics.
      axis, epsilon, affine, beta_..., gamma_..., trainable, dtype, name, input_shape: as in `NormAct`. There is no v.

    Input and output shape: [B, ..., C] floating point of rank 2 or more, any size but C unknown. Statistics and
      variables are float32 under float16 and bfloat16 policies.

    Raises:
      Mistake: groups that do not divide the channels, an axis that is neither the last nor the one after the batch,
        unknown channels.

    Source: EvoNorm paper, Table 3. The authors released no code for it; epsilon stands where Table 1 has it.
    """

    kind = "s1"


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class EvoNormS2(_EvoNormS):
    """x * sigmoid(x) / sqrt(group mean of x**2 + epsilon) * gamma + beta.

    Args:
      groups: number of groups of neighbouring channels, or "auto": 32, lowered until it divides the channels.
      jit_compile: whether XLA compiles the formula's loops; None decides as `EvoNormS0` says.
      apply_act: False leaves gamma * x + beta alone, without statistics.
      axis, epsilon, affine, beta_..., gamma_..., trainable, dtype, name, input_shape: as in `NormAct`. There is no v.

    Input and output shape: [B, ..., C] floating point of rank 2 or more, any size but C unknown. Statistics and
      variables are float32 under float16 and bfloat16 policies.

    Raises:
      Mistake: groups that do not divide the channels, an axis that is neither the last nor the one after the batch,
        unknown channels.

    Source: EvoNorm paper, Table 3. The authors released no code for it; epsilon stands where Table 1 has it.
    """

    kind = "s2"
