"""The layers that EvoNorm is compared with, each a normalization with its activation.

They are batch, group, layer, pixel and filter response normalization.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Union

import tensorflow as tf

from tf_evonorm import functional
from tf_evonorm.layers import activations
from tf_evonorm.layers.norm_act import (
    Constraint,
    Initializer,
    NormAct,
    Regularizer,
    arguments,
    check_momentum,
    whole,
)

Activation = Union[str, dict, Callable, None]


class _Activated(NormAct):
    """Normalization followed by an activation that is an argument.

    Subclasses write `affine_form(x, training, weights)`, the part before it, and `fused(x, training, weights, function,
    parameters)`, which computes both in one with the gradient of `functional.activated`, or returns None where that
    does not apply.
    """

    def __init__(self, activation, v_initializer, v_regularizer, v_constraint, jit_compile=None, **options):
        super().__init__(**options)
        self.jit_compile = None if jit_compile is None else bool(jit_compile)
        self.activation = activations.activation(activation)
        self.learned = self.activation == activations.SWISH_V
        self.describe("v", v_initializer, v_regularizer, v_constraint)

    def build(self, input_shape):
        super().build(input_shape)
        if self.learned and self.apply_act:
            self.v = self.channel_weight("v")

    def normalized(self, x, training, weights=None):
        inside = not self.apply_act or activations.is_element_wise(self.activation)
        function, parameters = functional.linear, []
        if self.apply_act and self.learned:
            function, parameters = activations.swish_v, [self.v]
        elif self.apply_act and inside:
            function = self.activation
        z = self.fused(x, training, weights, function, parameters)
        if z is None:
            return self.activated(self.affine_form(x, training, weights), x.dtype)
        return z if inside else self.activated(z, x.dtype)

    def fused(
        self,
        x: tf.Tensor,
        training: bool,
        weights: tf.Tensor | None,
        function: Callable,
        parameters: Sequence[tf.Tensor],
    ) -> tf.Tensor | None:
        """function(z, *parameters), z the affine form, in x's dtype; or None."""
        return None

    def conditioned(self, x, gamma, beta, training, weights=None):
        return self.activated(functional.raised(self.affine_form(x, training, weights)) * gamma + beta, x.dtype)

    def activated(self, z, dtype):
        """The activation of z, given back as dtype."""
        if not self.apply_act:
            return tf.cast(z, dtype)
        if not self.learned:
            return tf.cast(self.activation(tf.cast(z, dtype)), dtype)  # a layer as activation has a dtype of its own
        z = functional.raised(z)
        return tf.cast(activations.swish_v(z, self.along_channels(self.v, len(z.shape))), dtype)

    def get_config(self):
        return {**super().get_config(), "activation": activations.serialized(self.activation)}


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class BatchNormAct(_Activated):
    """Batch normalization and an activation: act((x - mean) / sqrt(variance + epsilon) * gamma + beta).

    Args:
      activation: see `tf_evonorm.layers.activations.activation`: a name ("relu", "silu", "gelu", "hard_silu", ...),
        "swish_v" (z * sigmoid(v * z), v learned), a function, or a Keras layer without weights.
      momentum: share of the moving statistics that stays at each training call.
      synchronized: take the statistics over all replicas of the strategy.
      v_initializer, v_regularizer, v_constraint: of v, where activation="swish_v".
      apply_act: False leaves the normalization without activation.
      axis, epsilon, affine, beta_..., gamma_..., trainable, dtype, name, input_shape: as in `NormAct`.
      jit_compile: as in `EvoNormS0`; False takes TensorFlow's fused kernel where it applies.

    Input and output shape: [B, ..., C]. A batch without samples moves nothing. A frozen layer (trainable=False) uses
      the moving statistics, as in Keras.

    Source: the moving variance is the one that divides by n - 1, n counted over all replicas where synchronized. Keras
      2 does so for images (its fused kernel) and not for other ranks, float64 or synchronized=True; Keras 3 never does.
      PyTorch, in which PixPro was written, always does.
    """

    learns_from_batches = True

    def __init__(
        self,
        activation: Activation = "relu",
        momentum: float = 0.9,
        synchronized: bool = False,
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
        jit_compile: bool | None = None,
    ):
        super().__init__(**arguments(locals(), "momentum", "synchronized"))
        self.momentum, self.synchronized = check_momentum(momentum), bool(synchronized)

    def build(self, input_shape):
        super().build(input_shape)
        self.moving_mean = self.moving_weight("moving_mean", "zeros")
        self.moving_variance = self.moving_weight("moving_variance", "ones")

    def affine_form(self, x: tf.Tensor, training: bool, weights: tf.Tensor | None = None) -> tf.Tensor:
        if not training:
            return self._affine(x, self.moving_mean, self.moving_variance)
        if weights is None and self._fits_kernel(x):
            # One kernel for the statistics and the result; the variance that it returns divides by n - 1 already.
            gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
            z, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=self.epsilon)
            count = tf.size(x)
        else:
            if weights is None:
                mean, biased, count = functional.batch_moments(x, self.axis, self.synchronized)
            else:
                mean, biased, count = functional.masked_batch_moments(x, weights, self.synchronized)
            mean, biased = tf.reshape(mean, [-1]), tf.reshape(biased, [-1])
            variance = biased * count / tf.maximum(count - 1, 1)
            z = self._affine(x, mean, biased)
        self._follow(mean, variance, count)
        return z

    def fused(
        self,
        x: tf.Tensor,
        training: bool,
        weights: tf.Tensor | None,
        function: Callable,
        parameters: Sequence[tf.Tensor],
    ) -> tf.Tensor | None:
        if not training or weights is not None:
            return None
        compiled, by_rule = self.jit_compile, self.jit_compile is None
        if by_rule:
            compiled = functional.compiles(f"batch {function.__name__}", functional.flattened(x, self.axis)[0])
        if self._fits_kernel(x) and (not compiled or (by_rule and not functional.on_processors())):
            return None  # on GPUs the kernel is the faster one
        options = {"axis": self.axis, "epsilon": self.epsilon, "synchronized": self.synchronized, "compiled": compiled}
        y, mean, biased, count = functional.batch_norm_activated(
            x, self.gamma, self.beta, function, parameters, **options
        )
        self._follow(mean, biased * count / tf.maximum(count - 1, 1), count)
        return y

    def _follow(self, mean, variance, count):
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            self.move(moving, value, count, self.momentum)

    def _fits_kernel(self, x):
        alone = not self.synchronized or tf.distribute.get_strategy().num_replicas_in_sync == 1
        return alone and len(x.shape) == 4 and self.axis in (-1, 3) and x.dtype != tf.float64

    def _affine(self, x, mean, variance):
        scale = tf.convert_to_tensor(self.gamma) * tf.math.rsqrt(variance + self.epsilon)
        offset = tf.convert_to_tensor(self.beta) - mean * scale
        rank = len(x.shape)
        return functional.raised(x) * self.along_channels(scale, rank) + self.along_channels(offset, rank)

    def get_config(self):
        own = {name: getattr(self, name) for name in ("momentum", "synchronized", "jit_compile")}
        return {**super().get_config(), **own}


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class GroupNormAct(_Activated):
    """Group normalization and an activation.

    act((x - mean) / sqrt(variance + epsilon) * gamma + beta), moments per group.

    Args:
      activation: as in `BatchNormAct`.
      groups: number of groups of neighbouring channels, or "auto": 32, lowered until it divides the channels.
      v_initializer, v_regularizer, v_constraint: of v, where activation="swish_v".
      apply_act: False leaves the normalization without activation.
      axis, epsilon, affine, beta_..., gamma_..., trainable, dtype, name, input_shape: as in `NormAct`.
      jit_compile: whether XLA compiles the formula's loops, as in `EvoNormS0`.

    Input and output shape: [B, ..., C].

    Raises:
      Mistake: groups do not divide the channels.

    Source: Wu and He 2018 (Group Normalization). Unlike Keras' layer: float32 moments under float16 policies.
    """

    def __init__(
        self,
        activation: Activation = "relu",
        groups: int | str = 32,
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
        jit_compile: bool | None = None,
    ):
        super().__init__(**arguments(locals(), "groups"))
        self.groups = whole(groups)

    def build(self, input_shape):
        super().build(input_shape)
        self.fitting_groups = functional.fitting_groups(self.groups, self.channels)

    def fused(
        self,
        x: tf.Tensor,
        training: bool,
        weights: tf.Tensor | None,
        function: Callable,
        parameters: Sequence[tf.Tensor],
    ) -> tf.Tensor | None:
        options = {"groups": self.fitting_groups, "axis": self.axis, "epsilon": self.epsilon}
        compiled = self.jit_compile if training or self.jit_compile is not None else False
        return functional.group_norm_activated(
            x, self.gamma, self.beta, function, parameters, compiled=compiled, **options
        )

    def affine_form(self, x: tf.Tensor, training: bool, weights: tf.Tensor | None = None) -> tf.Tensor:
        mean, variance = functional.moments(x, "group", self.fitting_groups, axis=self.axis)
        rank = len(x.shape)
        scale = self.along_channels(self.gamma, rank) * tf.math.rsqrt(variance + self.epsilon)
        offset = self.along_channels(self.beta, rank) - mean * scale
        return functional.raised(x) * scale + offset

    def get_config(self):
        return {**super().get_config(), "groups": self.groups, "jit_compile": self.jit_compile}


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class LayerNormAct(GroupNormAct):
    """Normalization over one whole sample (all positions and channels), gamma and beta per channel, and an activation.

    Args:
      activation: as in `BatchNormAct`.
      v_..., apply_act and all others: as in `GroupNormAct`.

    Input and output shape: [B, ..., C].

    Source: the "LayerNorm-ReLU" row of the EvoNorm paper's BigGAN table; index set (w, h, c) of its Table 1. Keras' own
      LayerNormalization takes its statistics over the channels of each position.
    """

    def __init__(
        self,
        activation: Activation = "relu",
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
        jit_compile: bool | None = None,
    ):
        super().__init__(groups=1, **arguments(locals()))

    def get_config(self):
        config = super().get_config()
        del config["groups"]
        return config


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class PixelNormAct(_Activated):
    """Each position divided by its root mean square over the channels, and an activation.

    act(x / sqrt(mean of x**2 over C + epsilon) * gamma + beta).

    Args:
      activation: as in `BatchNormAct`.
      v_initializer, v_regularizer, v_constraint: of v, where activation="swish_v".
      apply_act: False leaves the normalization without activation.
      axis, epsilon, affine, beta_..., gamma_..., trainable, dtype, name, input_shape: as in `NormAct`.

    Input and output shape: [B, ..., C].

    Source: the "PixelNorm-ReLU" row of the EvoNorm paper's BigGAN table; Karras et al. 2018 (Progressive Growing of
      GANs), section 4.2, where epsilon is 1e-8 and there is no gamma and beta.
    """

    def __init__(
        self,
        activation: Activation = "relu",
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
        super().__init__(**arguments(locals()))

    def affine_form(self, x: tf.Tensor, training: bool, weights: tf.Tensor | None = None) -> tf.Tensor:
        x, rank = functional.raised(x), len(x.shape)
        length = tf.math.rsqrt(tf.reduce_mean(tf.square(x), self.axis, keepdims=True) + self.epsilon)
        return x * length * self.along_channels(self.gamma, rank) + self.along_channels(self.beta, rank)


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class FilterResponseNormAct(NormAct):
    """Filter response normalization with its learned threshold.

    max(x / sqrt(mean of x**2 over positions + epsilon) * gamma + beta, tau).

    Args:
      epsilon: added to the mean square.
      tau_initializer, tau_regularizer, tau_constraint: of the learned threshold [C].
      apply_act: False leaves the threshold out.
      axis, affine, beta_..., gamma_..., trainable, dtype, name, input_shape: as in `NormAct`.
      jit_compile: as in `GroupNormAct`.

    Input and output shape: [B, ..., C].

    Source: Singh and Krishnan 2020 (Filter Response Normalization). TensorFlow Addons' FilterResponseNormalization
      gives the same numbers but wants channels last, rank 4 and a known size; its TLU learns one threshold per position
      and channel.
    """

    def __init__(
        self,
        epsilon: float = 1e-6,
        tau_initializer: Initializer = "zeros",
        tau_regularizer: Regularizer = None,
        tau_constraint: Constraint = None,
        axis: int = -1,
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
        jit_compile: bool | None = None,
    ):
        super().__init__(**arguments(locals(), "tau_initializer", "tau_regularizer", "tau_constraint", "jit_compile"))
        self.jit_compile = None if jit_compile is None else bool(jit_compile)
        self.describe("tau", tau_initializer, tau_regularizer, tau_constraint)

    def build(self, input_shape):
        super().build(input_shape)
        if self.apply_act:
            self.tau = self.channel_weight("tau")

    def normalized(self, x: tf.Tensor, training: bool, weights: tf.Tensor | None = None) -> tf.Tensor:
        function, parameters = (activations.above_threshold, [self.tau]) if self.apply_act else (functional.linear, [])
        options = {"groups": self.channels, "axis": self.axis, "epsilon": self.epsilon}
        compiled = self.jit_compile if training or self.jit_compile is not None else False
        return functional.group_norm_activated(
            x, self.gamma, self.beta, function, parameters, centred=False, compiled=compiled, **options
        )

    def conditioned(
        self,
        x: tf.Tensor,
        gamma: tf.Tensor,
        beta: tf.Tensor,
        training: bool,
        weights: tf.Tensor | None = None,
    ) -> tf.Tensor:
        return self._above_threshold(self._affine_form(x) * gamma + beta, x.dtype)

    def _affine_form(self, x):
        mean, variance = functional.moments(x, "instance", axis=self.axis)
        rank = len(x.shape)
        scale = self.along_channels(self.gamma, rank) * tf.math.rsqrt(variance + tf.square(mean) + self.epsilon)
        return functional.raised(x) * scale + self.along_channels(self.beta, rank)

    def _above_threshold(self, z, dtype):
        tau = self.along_channels(self.tau, len(z.shape)) if self.apply_act else None
        return tf.cast(z if tau is None else activations.above_threshold(z, tau), dtype)

    def get_config(self):
        return {**super().get_config(), "jit_compile": self.jit_compile}
