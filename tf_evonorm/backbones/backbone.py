"""What every backbone returns: a Keras model from images to a dict of levels, as Model Garden expects it."""

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="tf_evonorm")
class Backbone(tf.keras.Model):
    """A functional model whose outputs are the levels of a feature pyramid.

    It is built as `Backbone(inputs=images, outputs={"2": ..., "5": ...}, name=...)`. Level `l` is usually 2**l times
    smaller than the image. Model Garden's decoders, heads and tasks take it as their `backbone`.

    Input shape: [B, H, W, 3] floating point.
    Output shape: dict of level name -> [B, h, w, C].
    """

    @property
    def output_specs(self) -> dict:
        """Level name -> `tf.TensorShape` of that level, unknown sizes as None."""
        return {level: tf.TensorShape(features.shape) for level, features in self.output.items()}
