"""The dense linear probe, and what a transfer reads of a checkpoint with more than a backbone."""

import numpy as np
import pytest
import tensorflow as tf

from experiments import transfer
from experiments.builders import detector, pretext
from experiments.configs.pretrain import pixpro_fpn_r50_imagenet, pixpro_retinanet_r50_imagenet
from experiments.configs.transfer import (
    camvid_fcn_r18,
    coco_mask_rcnn_r50_c4_1x,
    coco_mask_rcnn_r50_fpn_1x,
    coco_retinanet_r50_fpn_1x,
)
from experiments.launch import session
from experiments.launch.schedule import StepSchedule
from tf_evonorm.backbones import resnet
from tf_pixpro import save_backbone


def task_of(config):
    config.train_data.input_path = config.validation_data.input_path = "records/none-*"
    schedule = session.build(StepSchedule, "schedule", config.schedule)
    return detector.make_task(config, schedule, detector.task_params(config, schedule))


def test_a_probe_is_one_convolution_on_an_encoder_that_stays(tmp_path):
    config = camvid_fcn_r18.get_config("probe-smoke")
    trained = resnet(18, width=0.125, blocks=(1, 1, 1, 1), output_stride=16)
    for number, weight in enumerate(trained.weights):
        if "kernel" not in weight.name:  # so that moving statistics are not those of the images
            weight.assign(tf.random.stateless_uniform(weight.shape, [number, 7], 0.5, 1.5))
    config.init = save_backbone(trained, str(tmp_path / "init"))
    task = task_of(config)
    model = task.build_model()
    task.initialize(model)
    optimizer = task.create_optimizer()
    kernel, bias = model.trainable_variables
    assert kernel.shape == (1, 1, 64, 9) and bias.shape == (9,)
    before = kernel.numpy()
    random = np.random.default_rng(0)
    images = tf.constant(random.normal(size=(2, 64, 64, 3)), tf.float32)
    masks = random.integers(0, 9, (2, 64, 64, 1))
    labels = {"masks": tf.constant(masks, tf.float32), "valid_masks": tf.ones(masks.shape, tf.bool)}
    for _ in range(2):  # the first step of the warm-up has next to no rate
        task.train_step((images, labels), model, optimizer)
    assert not np.array_equal(kernel, before)
    for one, other in zip(trained.weights, task.encoder.weights):
        np.testing.assert_array_equal(one, other, err_msg=one.name)
    features = trained(images, training=False)["5"].numpy()
    features = (features - features.mean((0, 1, 2))) / np.sqrt(features.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(model(images, training=True)["logits"], features @ kernel[0, 0] + bias, atol=1e-4)


def test_the_probe_differs_from_the_protocol_in_the_head_alone():
    probe, fcn = (camvid_fcn_r18.get_config(variant) for variant in ("probe", ""))
    for section in ("train_data", "validation_data", "norm_act", "backbone", "runtime", "init"):
        assert probe[section] == fcn[section], section
    assert "freeze" not in fcn and "fcn" not in probe.model and probe.model.head == fcn.model.head
    c4 = coco_mask_rcnn_r50_c4_1x.get_config("smoke")
    c4.freeze = {"mode": "inference"}
    with pytest.raises(ValueError, match="part of its encoder"):
        task_of(c4).build_model()


@pytest.mark.slow
@pytest.mark.parametrize(
    "pretraining, detection, parts",
    [
        (pixpro_retinanet_r50_imagenet, coco_retinanet_r50_fpn_1x, ("backbone", "decoder", "head")),
        (pixpro_fpn_r50_imagenet, coco_mask_rcnn_r50_fpn_1x, ("backbone", "decoder")),
    ],
)
def test_a_detector_starts_from_every_part_that_was_pretrained(pretraining, detection, parts, tmp_path):
    encoder = pretext.pretext_encoder(pretraining.get_config("smoke"))
    for number, weight in enumerate(encoder.weights):
        weight.assign(tf.random.stateless_uniform(weight.shape, [number, 3], 0.1, 1.0))
    config = detection.get_config("smoke")
    config.init = save_backbone(encoder, str(tmp_path / "backbone"))
    config.init_modules = detection.get_config("aligned").init_modules
    assert config.init_modules == parts
    task = task_of(config)
    model = task.build_model()
    task.initialize(model)
    for name in parts[:2]:
        for one, other in zip(getattr(encoder, name).weights, getattr(model, name).weights):
            np.testing.assert_array_equal(one, other, err_msg=one.name)
    if "head" in parts:
        np.testing.assert_array_equal(encoder.head._cls_convs[0].kernel, model.head._cls_convs[0].kernel)
        np.testing.assert_array_equal(encoder.head._box_norms[4][0].beta, model.head._box_norms[4][0].beta)


@pytest.mark.slow
def test_a_probe_runs(tmp_path):
    config = camvid_fcn_r18.get_config("probe-smoke")
    model, results = transfer.main(session.Session(config, str(tmp_path)))
    moving = [w for w in model.backbone.encoder.weights if "moving_mean" in w.name]
    assert moving and not any(np.any(w.numpy()) for w in moving) and 0 < results["mean_iou"] <= 1
    assert np.any(model.backbone.norm.moving_mean.numpy())
