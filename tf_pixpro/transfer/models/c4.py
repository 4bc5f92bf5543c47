"""R50-C4 detector: region proposals on level 4, level 5 of the encoder as the head of every region.

Model Garden does not provide this detector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from official.vision.configs import maskrcnn
from official.vision.modeling import factory, maskrcnn_model
from official.vision.ops import anchor

from tf_evonorm.mistakes import Mistake
from tf_pixpro.transfer.models.detectors import call_rcnn
from tf_pixpro.transfer.models.head_norms import replace_norms

_STRIDE = 16  # pixels of a cell of level 4


def octave_anchors(image_size: Sequence[int], anchors: maskrcnn.Anchor) -> dict[str, tf.Tensor]:
    """Anchors of level 4: `num_scales` sizes, each twice the one before, such as 32, 64, ..., 512 for 5 of them.

    Model Garden's own anchors divide one octave instead: size * 2 ** (i / num_scales).

    Args:
      image_size: (height, width) in pixels, multiples of 16.
      anchors: `anchor_size` in cells of 16 pixels, `num_scales`, `aspect_ratios` (width by height).

    Returns:
      {'4': [height / 16, width / 16, 4 * sizes * ratios] float32}, boxes (y1, x1, y2, x2) in pixels.
    """
    sizes, roots = anchors.anchor_size * _STRIDE * 2.0 ** np.arange(anchors.num_scales), np.sqrt(anchors.aspect_ratios)
    half = np.stack([sizes[:, None] / roots, sizes[:, None] * roots], axis=-1).reshape(-1, 2) / 2
    centres = np.stack(np.meshgrid(*(np.arange(_STRIDE / 2, side, _STRIDE) for side in image_size), indexing="ij"), -1)
    boxes = np.concatenate([centres[:, :, None] - half, centres[:, :, None] + half], axis=-1)
    return {"4": tf.constant(boxes.reshape(*boxes.shape[:2], -1), tf.float32)}


def with_octaves(
    images: tf.Tensor, labels: Mapping[str, Any], anchors: maskrcnn.Anchor, parser: maskrcnn.Parser | None = None
) -> tuple[tf.Tensor, dict[str, Any]]:
    """A batch of Model Garden's Mask R-CNN parser with `octave_anchors` in place of its own.

    Args:
      images: [B, H, W, 3].
      labels: with 'anchor_boxes', and of a training batch gt_boxes [B, N, 4] float32 and gt_classes [B, N], -1 where
        there is no object.
      anchors: as in `octave_anchors`.
      parser: settings of the region proposals' targets of a training batch; None for evaluation.

    Returns:
      (images, labels); of a training batch with 'rpn_score_targets' and 'rpn_box_targets' of these anchors.
    """
    boxes = octave_anchors(images.shape[1:3], anchors)
    labels = {**labels, "anchor_boxes": _for_each_image(boxes, images)}
    if parser is None:
        return images, labels
    labeler = anchor.RpnAnchorLabeler(
        parser.rpn_match_threshold,
        parser.rpn_unmatched_threshold,
        parser.rpn_batch_size_per_im,
        parser.rpn_fg_fraction,
    )

    def targets(truth):
        objects, classes = tf.boolean_mask(truth[0], truth[1] >= 0), tf.boolean_mask(truth[1], truth[1] >= 0)
        scores, offsets = labeler.label_anchors(boxes, objects, tf.cast(classes[:, None], tf.float32))
        return scores["4"], offsets["4"]

    scores, offsets = tf.map_fn(
        targets, (labels["gt_boxes"], labels["gt_classes"]), fn_output_signature=(tf.int32, tf.float32)
    )
    height, width, coordinates = boxes["4"].shape
    scores = tf.ensure_shape(scores, [None, height, width, coordinates // 4])
    offsets = tf.ensure_shape(offsets, [None, height, width, coordinates])
    return images, {**labels, "rpn_score_targets": {"4": scores}, "rpn_box_targets": {"4": offsets}}


def _for_each_image(boxes, images):
    return {level: tf.tile(some[None], [tf.shape(images)[0], 1, 1, 1]) for level, some in boxes.items()}


class MaskRCNNC4(maskrcnn_model.MaskRCNNModel):
    """Model Garden's Mask R-CNN with `octave_anchors` where it is called without anchors.

    Args:
      anchors: as in `octave_anchors`.
      parts: arguments of Model Garden's `MaskRCNNModel`.
    """

    def __init__(self, anchors: maskrcnn.Anchor, parts: Mapping[str, Any]):
        super().__init__(**parts)
        self._octaves = anchors

    def anchor_boxes(self, image_size: Sequence[int]) -> dict[str, tf.Tensor]:
        """The anchors of an image of (height, width) pixels, see `octave_anchors`."""
        return octave_anchors(image_size, self._octaves)

    def call(
        self,
        images,
        image_shape,
        anchor_boxes=None,
        gt_boxes=None,
        gt_classes=None,
        gt_masks=None,
        gt_outer_boxes=None,
        training=None,
    ):
        if anchor_boxes is None:
            anchor_boxes = _for_each_image(self.anchor_boxes(images.shape[1:3]), images)
        return super().call(
            images, image_shape, anchor_boxes, gt_boxes, gt_classes, gt_masks, gt_outer_boxes, training=training
        )


def mask_rcnn_c4(
    encoder: tf.keras.Model,
    params: maskrcnn.MaskRCNN,
    norm_act: Callable[..., tf.keras.layers.Layer] | None = None,
    regularizer: tf.keras.regularizers.Regularizer | None = None,
) -> tf.keras.Model:
    """A Mask R-CNN on level 4, or a Faster R-CNN with `params.include_mask` False.

    Args:
      encoder: backbone with levels '4' and '5', built for images of any size.
      params: Model Garden's `MaskRCNN` configuration with min_level = max_level = 4, `decoder` 'identity', both RoI
        aligners' crop_size 14 and mask_head.upsample_factor 1.
      norm_act: for region proposals and the extra normalization, called as norm_act(apply_act=..., name=...); None
        uses batch normalization configured by `params.norm_activation`.
      regularizer: Keras regularizer of kernels.

    Returns:
      A `MaskRCNNC4`. Its backbone is the encoder up to level 4; its heads share level 5, followed by the extra
      normalization; its anchors are `octave_anchors`.

    Raises:
      Mistake: if the levels are not 4, or regions are not twice the size that level 5 halves.

    Source: detectron2's R50-C4 with `Res5ROIHeadsExtraNorm`, as PixPro and MoCo use it. Differences: Model
      Garden's region proposals have a normalization, its RoI align takes one sample per bin, and images lie in a frame
      of one size.
    """
    if (params.min_level, params.max_level) != (4, 4) or params.decoder.type != "identity":
        raise Mistake(
            f"C4 has region proposals on level 4 alone. Received levels {params.min_level} to {params.max_level} "
            f"with decoder {params.decoder.type!r}. Pass min_level=max_level=4 and decoder.type='identity'."
        )
    if params.include_mask and (params.mask_roi_aligner.crop_size % 2 or params.mask_head.upsample_factor != 1):
        raise Mistake(
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
    parts = factory.build_maskrcnn(specs, params, regularizer, backbone=trunk).get_config()
    model = MaskRCNNC4(params.anchor, parts)
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
