"""R50-C4 detector: region proposals on level 4, level 5 of the encoder as the head of every region.

Model Garden does not provide this detector.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from official.vision.configs import maskrcnn
from official.vision.modeling import factory

from tf_pixpro.transfer.models.detectors import call_rcnn
from tf_pixpro.transfer.models.head_norms import replace_norms


class Octaves(int):
    """How many anchor sizes there are on a level, each twice the one before.

    Model Garden's anchors of a level divide one octave: size * 2 ** (i / count), or i / float(count) in older
    versions. With this count they are size * 2 ** i, such as 32, 64, ..., 512 for 5 of them.
    """

    def __float__(self):
        return 1.0

    def __rtruediv__(self, other):
        return float(other)


def mask_rcnn_c4(
    encoder: tf.keras.Model,
    params: maskrcnn.MaskRCNN,
    norm_act: Callable[..., tf.keras.layers.Layer] | None = None,
    regularizer: tf.keras.regularizers.Regularizer | None = None,
) -> tf.keras.Model:
    """A Mask R-CNN on level 4, or a Faster R-CNN with `params.include_mask` False.

    Args:
      encoder: backbone with levels '4' and '5', built for images of any size.
      params: Model Garden's `MaskRCNN` configuration with min_level = max_level = 4, `decoder` 'identity', `Octaves` as
        anchor.num_scales, both RoI aligners' crop_size 14 and mask_head.upsample_factor 1.
      norm_act: for region proposals and the extra normalization, called as norm_act(apply_act=..., name=...); None
        uses batch normalization configured by `params.norm_activation`.
      regularizer: Keras regularizer of kernels.

    Returns:
      Model Garden's `MaskRCNNModel`. Its backbone is the encoder up to level 4; its heads share level 5,
      followed by the extra normalization.

    Raises:
      ValueError: if the levels are not 4, or regions are not twice the size that level 5 halves.

    Source: detectron2's R50-C4 with `Res5ROIHeadsExtraNorm`, as PixPro and MoCo use it. Differences: Model
      Garden's region proposals have a normalization, its RoI align takes one sample per bin, and images lie in a frame
      of one size.
    """
    if (params.min_level, params.max_level) != (4, 4) or params.decoder.type != "identity":
        raise ValueError(
            f"C4 has region proposals on level 4 alone. Received levels {params.min_level} to {params.max_level} "
            f"with decoder {params.decoder.type!r}. Pass min_level=max_level=4 and decoder.type='identity'."
        )
    if params.include_mask and (params.mask_roi_aligner.crop_size % 2 or params.mask_head.upsample_factor != 1):
        raise ValueError(
            "level 5 halves a region's features and the mask head doubles them. Received mask_roi_aligner.crop_size="
            f"{params.mask_roi_aligner.crop_size}, mask_head.upsample_factor={params.mask_head.upsample_factor}. "
            "Pass 14 and 1."
        )
    trunk = Trunk(encoder.inputs[0], {"4": encoder.output["4"]}, name="level4")
    if norm_act is None:
        norm = params.norm_activation
        extra = tf.keras.layers.BatchNormalization(
            momentum=norm.norm_momentum, epsilon=norm.norm_epsilon, synchronized=norm.use_sync_bn, name="level5_norm"
        )
    else:
        extra = norm_act(apply_act=False, name="level5_norm")
    level5 = tf.keras.Model(encoder.output["4"], extra(encoder.output["5"]), name="level5")
    specs = tf.keras.layers.InputSpec(shape=[None, *params.input_size])
    model = factory.build_maskrcnn(specs, params, regularizer, backbone=trunk)
    model.detection_head = [BoxHead(level5, params.num_classes, regularizer, name="detection_head")]
    if params.include_mask:
        model.mask_head = MaskHead(
            level5, params.num_classes, params.mask_head.num_filters, regularizer, name="mask_head"
        )
    call_rcnn(model, params)
    if norm_act is not None:
        replace_norms(model.rpn_head, norm_act)
        call_rcnn(model, params)
    return model


class Trunk(tf.keras.Model):
    """The lower levels of an encoder, as Model Garden wants a backbone."""

    @property
    def output_specs(self) -> dict:
        """Level name -> `tf.TensorShape`."""
        return {level: tf.TensorShape(features.shape) for level, features in self.output.items()}


class BoxHead(tf.keras.layers.Layer):
    """Level 5 on every region, averaged: classes and boxes.

    Input shape: [B, N, 14, 14, C].
    Output shape: ([B, N, classes], [B, N, 4 classes]).
    """

    def __init__(
        self,
        level5: tf.keras.layers.Layer,
        classes: int,
        regularizer: tf.keras.regularizers.Regularizer | None = None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.level5 = level5
        self.scores = _dense(classes, 0.01, regularizer, "scores")
        self.boxes = _dense(4 * classes, 0.001, regularizer, "boxes")

    def call(self, inputs, training=None):
        regions = inputs.shape[1]
        x = self.level5(tf.reshape(inputs, [-1, *inputs.shape[2:]]), training=training)
        x = tf.reshape(tf.reduce_mean(x, [1, 2]), [-1, regions, x.shape[-1]])
        return self.scores(x), self.boxes(x)


class MaskHead(tf.keras.layers.Layer):
    """Level 5 on every region, twice as large again: a mask for the region's class.

    Input shape: ([B, N, 14, 14, C], [B, N] class numbers).
    Output shape: [B, N, 14, 14].
    """

    def __init__(
        self,
        level5: tf.keras.layers.Layer,
        classes: int,
        filters: int = 256,
        regularizer: tf.keras.regularizers.Regularizer | None = None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.level5 = level5
        options = {"kernel_regularizer": regularizer}
        options["kernel_initializer"] = tf.keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        self.upsample = tf.keras.layers.Conv2DTranspose(filters, 2, 2, activation="relu", name="upsample", **options)
        self.logits = tf.keras.layers.Conv2D(
            classes,
            1,
            kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.001),
            kernel_regularizer=regularizer,
            name="logits",
        )

    def call(self, inputs, training=None):
        features, labels = inputs
        x = self.level5(tf.reshape(features, [-1, *features.shape[2:]]), training=training)
        x = self.logits(self.upsample(x))
        x = tf.reshape(x, [-1, features.shape[1], *x.shape[1:]])
        return tf.gather(x, tf.cast(labels, tf.int32), axis=-1, batch_dims=2)


def _dense(units, deviation, regularizer, name):
    start = tf.keras.initializers.RandomNormal(stddev=deviation)
    return tf.keras.layers.Dense(units, kernel_initializer=start, kernel_regularizer=regularizer, name=name)
