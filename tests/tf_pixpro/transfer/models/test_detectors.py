"""Detectors and segmenters on our encoders: published sizes, norm_act, all-or-nothing loading of encoders."""

import numpy as np
import pytest
import tensorflow as tf
from official.vision.configs import maskrcnn, retinanet, semantic_segmentation

from tf_evonorm import EvoNormB0, EvoNormS0
from tf_evonorm.backbones import resnet
from tf_pixpro import save_backbone
from tf_pixpro.transfer import tasks
from tf_pixpro.transfer.models import c4, detectors

TINY = {"width": 0.125, "blocks": (1, 1, 1, 1)}


def counted(layer):
    return sum(int(np.prod(weight.shape)) for weight in layer.trainable_variables)


def batch_norms(model):
    kinds = (tf.keras.layers.BatchNormalization, tf.keras.layers.experimental.SyncBatchNormalization)
    return [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]


def layers_of(model, kind):
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]


def segmenter_params(classes=5, side=64, **more):
    params = semantic_segmentation.SemanticSegmentationModel(num_classes=classes, input_size=[side, side, 3])
    params.override({"head": {"level": 5, "num_convs": 0}, **more})
    return params


def encoder(side=64, norm_act=None, depth=18, **more):
    return resnet(depth, norm_act, input_size=(side, side, 3), **{**TINY, **more})


def small_rcnn(side=64):
    params = maskrcnn.MaskRCNN(num_classes=4, input_size=[side, side, 3], min_level=2, max_level=4)
    few = {"num_filters": 16}
    params.override(
        {
            "decoder": {"type": "fpn", "fpn": few},
            "rpn_head": few,
            "detection_head": {**few, "num_convs": 1, "fc_dims": 16},
            "mask_head": {**few, "num_convs": 1},
            "roi_generator": {"test_pre_nms_top_k": 20, "test_num_proposals": 8},
            "detection_generator": {"pre_nms_top_k": 8, "max_num_detections": 4},
        }
    )
    return params


def test_the_fcn_of_the_protocol():
    # Level 5 at stride 16 has 8/16 the side of the image; two 3x3 convolutions of 256 without bias, their norms, one
    # 1x1 classifier.
    made = encoder(depth=18, width=1.0, blocks=None, output_stride=16)
    model = detectors.segmenter(made, segmenter_params(19), fcn={})
    convolutions = layers_of(model.decoder, tf.keras.layers.Conv2D)
    assert [c.dilation_rate for c in convolutions] == [(6, 6), (6, 6)]
    assert model(tf.zeros([1, 64, 64, 3]))["logits"].shape == (1, 4, 4, 19)
    # ResNet-18 without its classifier has 11,176,512 weights (torchvision's 11,689,512 with 513,000 of the classifier).
    head = 9 * 512 * 256 + 9 * 256 * 256 + 2 * 2 * 256 + 256 * 19 + 19
    assert counted(model) == 11176512 + head


def test_norm_act_reaches_every_layer_of_a_segmenter():
    model = detectors.segmenter(
        encoder(norm_act=EvoNormB0), segmenter_params(), EvoNormB0, fcn={"filters": 8, "dilation": 2}
    )
    assert not batch_norms(model) and len(layers_of(model.decoder, EvoNormB0)) == 2
    deeplab = {
        "decoder": {"type": "aspp", "aspp": {"level": 5, "dilation_rates": [2], "num_filters": 8}},
        "head": {
            "level": 5,
            "num_convs": 2,
            "num_filters": 8,
            "feature_fusion": "deeplabv3plus",
            "low_level_num_filters": 4,
        },
    }
    plain = detectors.segmenter(encoder(), segmenter_params(**deeplab))
    evolved = detectors.segmenter(encoder(norm_act=EvoNormB0), segmenter_params(**deeplab), EvoNormB0)
    assert evolved(tf.zeros([1, 64, 64, 3]))["logits"].shape == (1, 16, 16, 5)
    assert not batch_norms(evolved)
    outside = [len(batch_norms(part)) for part in (plain.head, plain.decoder)]
    assert [len(layers_of(part, EvoNormB0)) for part in (evolved.head, evolved.decoder)] == outside
    # B0 has gamma, beta and v where batch normalization has gamma and beta, so the weight count grows by
    # the channels of its layers.
    extra = sum(layer.channels for layer in layers_of(evolved.head, EvoNormB0))
    assert counted(evolved.head) == counted(plain.head) + extra


def test_replaced_layers_are_used_trained_and_saved(tmp_path):
    params = segmenter_params(head={"level": 5, "num_convs": 1, "num_filters": 8}, decoder={"type": "identity"})
    model = detectors.segmenter(encoder(), params, EvoNormB0)
    images = tf.random.stateless_normal([2, 64, 64, 3], [0, 1])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(images, training=True)["logits"] - 1.0))
    (norm,) = layers_of(model.head, EvoNormB0)
    assert all(tf.reduce_any(g != 0) for g in tape.gradient(loss, [norm.gamma, norm.beta, norm.v]))
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "all"))
    norm.gamma.assign_add(tf.ones_like(norm.gamma))
    changed = model(images, training=False)["logits"]
    tf.train.Checkpoint(model=model).read(path).assert_consumed()
    assert not np.allclose(model(images, training=False)["logits"], changed)
    np.testing.assert_array_equal(norm.gamma, np.ones(8, np.float32))


@pytest.mark.slow
def test_norm_act_reaches_a_two_stage_detector():
    def norm_act(**kwargs):
        return EvoNormS0(groups="auto", **kwargs)

    model = detectors.mask_rcnn(encoder(norm_act=norm_act), small_rcnn(), norm_act)
    assert not batch_norms(model)
    assert {layer.apply_act for layer in layers_of(model.decoder, EvoNormS0)} == {False}
    # Region proposals: one norm for each of levels 2 to 4; a convolution and a dense layer; a convolution and the
    # upsampling.
    heads = (model.rpn_head, *model.detection_head, model.mask_head)
    assert [len(layers_of(head, EvoNormS0)) for head in heads] == [3, 2, 2]
    outputs = model(tf.zeros([1, 64, 64, 3]), image_shape=tf.constant([[64.0, 64.0]]), training=False)
    assert outputs["detection_masks"].shape == (1, 4, 28, 28)
    only_encoder = detectors.mask_rcnn(encoder(norm_act=norm_act), small_rcnn())
    synchronized = [layer.synchronized for layer in batch_norms(only_encoder.mask_head)]
    assert synchronized == [True, True]


def test_an_encoder_is_loaded_whole_or_not_at_all(tmp_path):
    params = semantic_segmentation.SemanticSegmentationTask(model=segmenter_params())

    def task(init, **more):
        made = encoder(**more)
        return tasks.SegmentationTask(
            params, lambda: (detectors.segmenter(made, params.model, fcn={"filters": 8}), made), None, init
        )

    pretrained = encoder()
    for weight in pretrained.weights:
        weight.assign(tf.random.stateless_normal(weight.shape, [0, 2]))
    path = save_backbone(pretrained, str(tmp_path / "backbone"))
    ours = task(path)
    ours.initialize(ours.build_model())
    for one, other in zip(pretrained.weights, ours.encoder.weights):
        np.testing.assert_array_equal(one, other)
    wider = task(path, width=0.25)
    model = wider.build_model()
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(ValueError, match=r"exactly the encoder's variables.*conv1"):
        wider.initialize(model)
    for one, other in zip(before, model.weights):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(FileNotFoundError):
        absent = task(str(tmp_path / "absent"))
        absent.initialize(absent.build_model())


@pytest.mark.slow
def test_c4_shares_level_5_of_its_encoder():
    params = small_rcnn()
    identity = {"min_level": 4, "max_level": 4, "decoder": {"type": "identity"}, "rpn_head": {"num_filters": 16}}
    params.override({**identity, "mask_head": {"num_filters": 16, "upsample_factor": 1}})
    with pytest.raises(ValueError, match="level 5 halves"):
        wrong = small_rcnn()
        wrong.override(identity)
        c4.mask_rcnn_c4(resnet(18, **TINY), wrong)
    for crop in (params.roi_aligner, params.mask_roi_aligner):
        crop.crop_size = 14
    params.anchor.num_scales = 5
    made = resnet(18, **TINY)
    model = c4.mask_rcnn_c4(made, params)
    assert model.detection_head[0].level5 is model.mask_head.level5
    mine = {id(weight) for weight in model.variables}
    assert {id(weight) for weight in made.variables} <= mine
    # Level 4 has 32 channels, level 5 has 64; 15 anchors; 4 classes.
    proposals = 9 * 32 * 16 + 16 + 2 * 16 + (16 + 1) * 15 * 5
    regions = 2 * 64 + (64 + 1) * 4 * 5
    masks = 4 * 64 * 16 + 16 + (16 + 1) * 4
    assert counted(model) == counted(made) + proposals + regions + masks
    images, shapes = tf.random.stateless_uniform([1, 64, 64, 3], (0, 1)), tf.constant([[64.0, 64.0]])
    outputs = model(images, image_shape=shapes, training=False)
    assert outputs["detection_masks"].shape == (1, 4, 14, 14)
    anchors = {level: boxes[None] for level, boxes in model.anchor_boxes((64, 64)).items()}
    given = model(images, image_shape=shapes, anchor_boxes=anchors, training=False)
    np.testing.assert_array_equal(given["detection_boxes"], outputs["detection_boxes"])


@pytest.mark.slow
def test_published_sizes():
    # EvoNorm, arXiv v1, table 4: Mask R-CNN with R-50-FPN, 46.37 M parameters with batch normalization,
    # 46.38 M with EvoNorm S0 and B0.
    params = maskrcnn.MaskRCNN(num_classes=91, input_size=[256, 256, 3])
    plain = {"width": 1.0, "blocks": None}
    model = detectors.mask_rcnn(encoder(256, depth=50, **plain), params)
    assert round(counted(model) / 1e6, 2) == 46.37
    evolved = detectors.mask_rcnn(encoder(256, EvoNormS0, depth=50, **plain), params, EvoNormS0)
    assert counted(evolved) / 1e6 == pytest.approx(46.38, abs=0.005)
    # RetinaNet paper's head: 9 anchors of 90 foreground classes and the background here; towers of four
    # 3x3x256 convolutions.
    detector = detectors.retinanet(
        encoder(256, depth=50, **plain), retinanet.RetinaNet(num_classes=91, input_size=[256, 256, 3])
    )
    towers = 2 * 4 * (9 * 256 * 256 + 256)
    norms = 5 * 2 * 4 * 2 * 256
    last = (9 * 256 + 1) * 9 * (91 + 4)
    assert counted(detector.head) == towers + norms + last
