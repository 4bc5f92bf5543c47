"""Detectors and segmenters: Model Garden's, around an encoder of ours, with any normalization and activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf
from official.vision.configs import maskrcnn, semantic_segmentation
from official.vision.configs import retinanet as retinanet_config
from official.vision.modeling import factory
from official.vision.modeling.decoders import factory as decoders

from tf_pixpro.transfer.models.head_norms import replace_norms, replace_output_norms


def segmenter(
    encoder: tf.keras.Model,
    params: semantic_segmentation.SemanticSegmentationModel,
    norm_act: Callable[..., tf.keras.layers.Layer] | None = None,
    regularizer: tf.keras.regularizers.Regularizer | None = None,
    fcn: Mapping[str, int] | None = None,
) -> tf.keras.Model:
    """A semantic segmenter.

    Args:
      encoder: backbone [B, H, W, 3] -> {'2': ..., '5': ...}, built for `params.input_size`.
      params: Model Garden's `SemanticSegmentationModel` configuration; its `backbone` is not used.
      norm_act: callable for decoder and head, called as norm_act(name=...); None leaves Model Garden's batch
        normalization, as `params.norm_activation` says.
      regularizer: Keras regularizer of kernels.
      fcn: {'filters', 'convs', 'dilation'} of dilated 3x3 convolutions on the head's level, which take the place of
        `params.decoder`; None leaves that, 'aspp' for DeepLabV3+.

    Returns:
      A model [B, H, W, 3] -> {'logits': [B, h, w, classes]}, h and w those of its level.

    Source: the FCN of PixPro's and MoCo's Cityscapes protocol: two convolutions of 256 with dilation 6 on level 5 at
      output stride 16.
      Difference: logits are brought to the labels' size without aligned corners.
    """
    decoder = None
    if fcn is not None:
        decoder = _fcn(
            encoder.output_specs, str(params.head.level), norm_act or _batch_norm(params), regularizer, **fcn
        )
    model = factory.build_segmentation_model(
        tf.keras.layers.InputSpec(shape=[None, *params.input_size]),
        params,
        regularizer,
        backbone=encoder,
        decoder=decoder,
    )
    images = tf.keras.Input(params.input_size)
    model(images, training=False)
    if norm_act is not None:
        replace_norms(model.head, norm_act)
        if fcn is None and model.decoder is not None:
            replace_norms(model.decoder, norm_act)
        model(images, training=False)
    return model


def retinanet(
    encoder: tf.keras.Model,
    params: retinanet_config.RetinaNet,
    norm_act: Callable[..., tf.keras.layers.Layer] | None = None,
    regularizer: tf.keras.regularizers.Regularizer | None = None,
) -> tf.keras.Model:
    """A RetinaNet.

    Args:
      encoder, norm_act, regularizer: as in `segmenter`.
      params: Model Garden's `RetinaNet` configuration.

    Returns:
      Model Garden's `RetinaNetModel`; also the head network that is pre-trained with its encoder: `decoder` gives
      levels min_level ... max_level, `head` class and box towers.
    """
    specs = tf.keras.layers.InputSpec(shape=[None, *params.input_size])
    decoder = _decoder(encoder, params, norm_act, regularizer)
    if decoder is None:
        decoder = _chosen(encoder, params)
    model = factory.build_retinanet(specs, params, regularizer, backbone=encoder, decoder=decoder)
    if norm_act is not None:
        replace_norms(model.head, norm_act)
        model.head(decoder(encoder(tf.keras.Input(params.input_size))))
    return model


def mask_rcnn(
    encoder: tf.keras.Model,
    params: maskrcnn.MaskRCNN,
    norm_act: Callable[..., tf.keras.layers.Layer] | None = None,
    regularizer: tf.keras.regularizers.Regularizer | None = None,
) -> tf.keras.Model:
    """A Mask R-CNN, or a Faster R-CNN with `params.include_mask` False.

    Args:
      encoder, norm_act, regularizer: as in `segmenter`.
      params: Model Garden's `MaskRCNN` configuration.

    Returns:
      Model Garden's `MaskRCNNModel`. With `norm_act` it reaches decoder (its form without activation), region
      proposals, box and mask head.
    """
    specs = tf.keras.layers.InputSpec(shape=[None, *params.input_size])
    decoder = _decoder(encoder, params, norm_act, regularizer)
    model = factory.build_maskrcnn(specs, params, regularizer, backbone=encoder, decoder=decoder)
    heads = [model.rpn_head, *model.detection_head]
    if model.mask_head is not None:
        # Model Garden forgets to tell the mask head.
        model.mask_head._config_dict["use_sync_bn"] = params.norm_activation.use_sync_bn
        heads.append(model.mask_head)
    call_rcnn(model, params)
    if norm_act is not None:
        for head in heads:
            replace_norms(head, norm_act)
        call_rcnn(model, params)
    return model


def call_rcnn(model: tf.keras.Model, params: maskrcnn.MaskRCNN) -> None:
    """Builds all weights of a two-stage detector."""
    model(tf.keras.Input(params.input_size), image_shape=tf.keras.Input([2]), training=False)


def _decoder(encoder, params, norm_act, regularizer):
    decoder = decoders.build_decoder(encoder.output_specs, params, regularizer)
    if decoder is None or norm_act is None:
        return decoder
    return replace_output_norms(decoder, norm_act)


def _chosen(encoder, params):
    """The levels that a head reads, of an encoder that makes them itself."""
    levels = [str(level) for level in range(params.min_level, params.max_level + 1)]
    inputs = {level: tf.keras.Input(spec[1:]) for level, spec in encoder.output_specs.items()}
    return tf.keras.Model(inputs, {level: inputs[level] for level in levels}, name="levels")


def _fcn(specs, level, norm_act, regularizer, filters=256, convs=2, dilation=6):
    inputs = {name: tf.keras.Input(spec[1:]) for name, spec in specs.items()}
    x = inputs[level]
    for number in range(convs):
        x = tf.keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            dilation_rate=dilation,
            use_bias=False,
            kernel_initializer=tf.keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
            kernel_regularizer=regularizer,
            name=f"fcn_conv_{number}",
        )(x)
        x = norm_act(name=f"fcn_norm_{number}")(x)
    return tf.keras.Model(inputs, {level: x}, name="fcn")


def _batch_norm(params):
    """Batch normalization and ReLU as Model Garden's configuration has them."""
    norm = params.norm_activation

    def norm_act(name):
        return tf.keras.Sequential(
            [
                tf.keras.layers.BatchNormalization(
                    momentum=norm.norm_momentum, epsilon=norm.norm_epsilon, synchronized=norm.use_sync_bn, name="norm"
                ),
                tf.keras.layers.Activation(norm.activation, name="act"),
            ],
            name=name,
        )

    return norm_act
