"""LARS with the authors' exclusions."""

from __future__ import annotations

import tensorflow as tf

from tf_evonorm.mistakes import Mistake


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class LARS(tf.keras.optimizers.SGD):
    """Layer-wise adaptive rate scaling over SGD with momentum.

    For weights of two or more axes the gradient `g` becomes `g + weight_decay * w` and is then scaled by
    `trust_coefficient * |w| / (|g| + epsilon)` if both norms are positive. Weights of one axis (biases, gamma, beta, v)
    are neither decayed nor scaled. For all: `buffer = momentum * buffer + g`, `w -= learning_rate * buffer`.

    Args:
      learning_rate: a float or a schedule.
      momentum: share of the buffer that stays, in [0, 1).
      weight_decay: L2 coefficient, added to the gradient before the norm is taken.
      trust_coefficient: length of a step relative to the weights.
      epsilon: keeps the ratio finite.
      name, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency: as in every Keras
        optimizer; clipping comes before the decay.
      jit_compile: as in Keras 2, which alone has it.
      loss_scale_factor, gradient_accumulation_steps: as in Keras 3, which alone has them.

    Raises:
      Mistake: if momentum, weight_decay or trust_coefficient is out of its range.

    Source: You et al., arXiv 1708.03888, as in the authors' `contrast/lars.py`: the learning rate stays outside the
      buffer, unlike SimCLR's LARS, so the two differ whenever the rate changes.
    """

    def __init__(
        self,
        learning_rate: float | tf.keras.optimizers.schedules.LearningRateSchedule = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        epsilon: float = 1e-8,
        name: str = "LARS",
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        jit_compile: bool | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
    ):
        if not 0 <= momentum < 1:
            raise Mistake(f"momentum must be in [0, 1). Received momentum={momentum}.")
        if weight_decay is None or weight_decay < 0:
            raise Mistake(f"weight_decay must be 0 or more. Received weight_decay={weight_decay}. Pass 0. for none.")
        if not trust_coefficient > 0:
            raise Mistake(f"trust_coefficient must be positive. Received trust_coefficient={trust_coefficient}.")
        # SGD brings the rate, the buffers and their checkpoints. Its own `weight_decay` is the decoupled kind and stays
        # off.
        of_one_generation = {
            "jit_compile": jit_compile,
            "loss_scale_factor": loss_scale_factor,
            "gradient_accumulation_steps": gradient_accumulation_steps,
        }
        super().__init__(
            learning_rate,
            momentum=momentum,
            name=name,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            **{key: value for key, value in of_one_generation.items() if value is not None},
        )
        self.decay = weight_decay
        self.trust_coefficient = trust_coefficient
        self.epsilon = epsilon

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor | None = None) -> None:
        rate = tf.cast(self.learning_rate if learning_rate is None else learning_rate, variable.dtype)
        if len(variable.shape) > 1:
            gradient = self._adapted(tf.convert_to_tensor(gradient), tf.convert_to_tensor(variable))
        if self.momentum:
            buffer = self.buffer_of(variable)
            buffer.assign(self.momentum * buffer + gradient)
            gradient = buffer
        variable.assign_sub(rate * gradient)

    def _adapted(self, gradient, weights):
        gradient += self.decay * weights
        weight_norm, gradient_norm = tf.norm(weights), tf.norm(gradient)
        ratio = self.trust_coefficient * weight_norm / (gradient_norm + self.epsilon)
        return gradient * tf.where((weight_norm > 0) & (gradient_norm > 0), ratio, tf.ones_like(ratio))

    def buffer_of(self, variable: tf.Variable) -> tf.Variable:
        """The momentum buffer of a weight; the optimizer must be built on it."""
        if hasattr(self, "_get_variable_index"):  # Keras 3
            return self.momentums[self._get_variable_index(variable)]
        return self.momentums[self._index_dict[self._var_key(variable)]]

    def get_config(self):
        config = super().get_config()
        config.pop("nesterov")
        config.update(weight_decay=self.decay, trust_coefficient=self.trust_coefficient, epsilon=self.epsilon)
        return config

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> LARS:
        config = {**config, "weight_decay": config.get("weight_decay") or 0.0}
        config.pop("is_legacy_optimizer", None)  # of Keras 2
        return super().from_config(config, custom_objects=custom_objects)
