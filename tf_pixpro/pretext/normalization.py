"""Batch normalization of the heads: statistics over all replicas, running variance as the authors' framework keeps it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_evonorm.keras_generation import follows_batches


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class BatchNorm(tf.keras.layers.Layer):
    """Batch normalization over all axes but the last: (x - mean) / sqrt(variance + epsilon) * gamma + beta.

    Args:
      momentum: share of the running statistics that stays at each training call.
      epsilon: added to the variance.
      synchronized: take the statistics over all replicas of the strategy (the authors' SyncBatchNorm).

    Input and output shape: [B, ..., C]. Statistics are float32 under float16 and bfloat16 policies.

    Source: the authors use PyTorch's SyncBatchNorm with its defaults (epsilon 1e-5, momentum 0.1 of the new value). It keeps the
    running variance with n / (n - 1), over the global n, where Keras' synchronized layer keeps the biased one.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, synchronized: bool = True, **kwargs: Any):
        # Variables and statistics in float32 (or float64) whatever comes in; the result has the input's type.
        dtype = "float64" if kwargs.pop("dtype", tf.keras.backend.floatx()) == "float64" else "float32"
        super().__init__(dtype=dtype, autocast=False, **kwargs)
        self.momentum, self.epsilon, self.synchronized = momentum, epsilon, synchronized

    def build(self, input_shape):
        weight = {"shape": (input_shape[-1],)}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **weight)
        self.beta = self.add_weight(name="beta", initializer="zeros", **weight)
        weight.update(follows_batches())
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **weight)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **weight)
        super().build(input_shape)

    def call(self, inputs, training=False):
        if not training:
            return self._normalized(inputs, self.moving_mean, self.moving_variance)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync if self.synchronized else 1
        if replicas == 1 and len(inputs.shape) == 4 and inputs.dtype != tf.float64:
            # One kernel for statistics and result; the variance that it returns is already n / (n - 1).
            outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                inputs, self.gamma, self.beta, epsilon=self.epsilon
            )
        else:
            mean, biased, count = self._moments(inputs, replicas)
            outputs = self._normalized(inputs, mean, biased)
            variance = biased * count / tf.maximum(count - 1, 1)
        self.moving_mean.assign(self.momentum * self.moving_mean + (1 - self.momentum) * mean)
        self.moving_variance.assign(self.momentum * self.moving_variance + (1 - self.momentum) * variance)
        return outputs

    def _moments(self, inputs, replicas):
        inputs = tf.cast(inputs, self.dtype)
        axes = list(range(len(inputs.shape) - 1))
        count = tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], inputs.dtype)
        total = _summed(tf.reduce_sum(inputs, axes), replicas)
        count = _summed(count, replicas)
        mean = total / count
        variance = _summed(tf.reduce_sum(tf.math.squared_difference(inputs, mean), axes), replicas) / count
        return mean, variance, count

    def _normalized(self, inputs, mean, variance):
        scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)
        offset = self.beta - mean * scale
        return tf.cast(tf.cast(inputs, scale.dtype) * scale + offset, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = {"momentum": self.momentum, "epsilon": self.epsilon, "synchronized": self.synchronized}
        return {**super().get_config(), **config}


def _summed(value, replicas):
    if replicas == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)
