"""An encoder that is judged and not taught: the backbone of linear evaluation and of dense probes."""

from __future__ import annotations

import tensorflow as tf

from tf_evonorm.mistakes import Mistake

MODES = ("inference", "training")


class Frozen(tf.keras.Model):
    """A frozen encoder: images [B, H, W, 3] -> its levels {'2': [B, h, w, C], ...}, without gradient.

    Args:
      encoder: a built `tf.keras.Model`; its weights stay its own, to be loaded and saved as those of any encoder.
      mode: 'inference' normalises with the moving statistics, whatever the model around it does, and changes nothing;
        'training' lets a model in training normalise with the batch, and the moving statistics follow.
      standardize: whether the highest level is brought to mean 0 and variance 1 by channel, with moving statistics of
        the batches that the model around it is trained on. A linear layer on it stays one, and the same learning rate
        fits encoders whose features differ in size.

    Raises:
      Mistake: if the mode is another one.

    Source: PixPro's linear evaluation, which does not standardize. The authors' `main_linear.py` freezes the weights
      and leaves the network in training mode. Standardizing is usual for linear probes elsewhere (He et al. 2021,
      Masked Autoencoders, appendix A.1).
    """

    def __init__(
        self,
        encoder: tf.keras.Model,
        mode: str = "inference",
        standardize: bool = False,
        name: str = "frozen",
    ):
        if mode not in MODES:
            raise Mistake(f"the mode of a frozen encoder must be {' or '.join(MODES)}. Received mode={mode!r}.")
        super().__init__(name=name)
        self.encoder, self.mode, self.norm = encoder, mode, None
        if standardize:
            self.norm = tf.keras.layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, center=False, scale=False, synchronized=True, name="standardize"
            )
        self(tf.keras.Input(encoder.input_shape[1:]))

    def call(self, inputs, training=False):
        levels = self.encoder(inputs, training=training if self.mode == "training" else False)
        if self.norm is not None:
            highest = max(levels)
            levels = {**levels, highest: self.norm(levels[highest], training=training)}
        return {level: tf.stop_gradient(features) for level, features in levels.items()}

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        """Empty: `trainable=False` would switch batch normalization to inference mode, so the weights are hidden."""
        return []

    @property
    def non_trainable_weights(self) -> list[tf.Variable]:
        """All of the encoder's, and the statistics that standardize."""
        return self.encoder.weights + (self.norm.weights if self.norm is not None else [])

    @property
    def output_specs(self) -> dict:
        """Level -> `tf.TensorShape`."""
        return self.encoder.output_specs

    @property
    def checkpoint_items(self) -> dict:
        """The encoder, as `tf_pixpro.save_backbone` writes it."""
        return {"backbone": self.encoder}
