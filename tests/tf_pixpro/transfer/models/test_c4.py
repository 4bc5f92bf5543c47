"""Anchors of C4: where one size is asked for they are Model Garden's, and so are the targets of region proposals."""

import numpy as np
import pytest
import tensorflow as tf
from official.vision.configs import maskrcnn
from official.vision.ops import anchor as model_garden

from tf_pixpro.transfer.models import c4

RATIOS = [0.5, 1.0, 2.0]


@pytest.mark.parametrize("size", [(64, 96), (16, 32)])
def test_one_size_gives_model_gardens_anchors(size):
    expected = model_garden.build_anchor_generator(4, 4, 1, RATIOS, 2.0)(image_size=size)["4"]
    found = c4.octave_anchors(size, maskrcnn.Anchor(num_scales=1, aspect_ratios=RATIOS, anchor_size=2.0))["4"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("scales", [1, 5])
def test_targets_are_those_of_model_gardens_labeler(scales):
    anchors = maskrcnn.Anchor(num_scales=scales, aspect_ratios=RATIOS, anchor_size=2.0)
    objects = [np.array([[4, 8, 40, 44], [30, 10, 60, 90]], np.float32), np.array([[0, 0, 33, 35]], np.float32)]
    objects.append(np.zeros([0, 4], np.float32))
    boxes, classes = np.full([3, 3, 4], -1, np.float32), np.full([3, 3], -1, np.int64)
    for image, some in enumerate(objects):
        boxes[image, : len(some)], classes[image, : len(some)] = some, 1
    parser = maskrcnn.Parser(rpn_batch_size_per_im=10**6)  # all of them, so that chance has no part
    labels = {"gt_boxes": boxes, "gt_classes": classes, "anchor_boxes": "Model Garden's"}
    batch = tf.data.Dataset.from_tensors((tf.zeros([3, 64, 96, 3]), labels))
    _, labels = next(iter(batch.map(lambda images, labels: c4.with_octaves(images, labels, anchors, parser))))
    made = c4.octave_anchors((64, 96), anchors)
    labeler = model_garden.RpnAnchorLabeler(rpn_batch_size_per_im=10**6)
    for image, some in enumerate(objects):
        scores, offsets = labeler.label_anchors(made, tf.constant(some), tf.ones([len(some), 1]))
        np.testing.assert_array_equal(labels["rpn_score_targets"]["4"][image], scores["4"])
        np.testing.assert_array_equal(labels["rpn_box_targets"]["4"][image], offsets["4"])
        np.testing.assert_array_equal(labels["anchor_boxes"]["4"][image], made["4"])
    assert (labels["rpn_score_targets"]["4"].numpy() == 1).any((1, 2, 3)).tolist() == [True, True, False]
