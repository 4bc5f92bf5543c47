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


@tf.keras.utils.register_keras_serializable(package="tf_evonorm")
class HeadedBackbone(Backbone):
    """A backbone whose highest level is the wide convolution before its classifier.

    That level is as large as the one below it, so `output_specs` leaves it out and decoders pass it by, while a
    classifier, which reads the highest output, finds it: Model Garden's convention.
    """

    @property
    def output_specs(self) -> dict:
        """Level name -> `tf.TensorShape` of every level but the highest."""
        specs = super().output_specs
        specs.pop(max(specs))
        return specs
