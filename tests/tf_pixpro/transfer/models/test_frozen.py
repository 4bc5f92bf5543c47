"""A frozen encoder: no trainable weights; moving statistics are updated only in the mode that does so."""

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm.backbones import resnet
from tf_pixpro import load_backbone, save_backbone
from tf_pixpro.transfer.classification import classifier
from tf_pixpro.transfer.models.frozen import Frozen


def encoder():
    return resnet(18, width=0.125, blocks=(1, 1))


IMAGES = tf.random.stateless_normal([4, 32, 32, 3], [0, 1], mean=0.5)


@pytest.mark.parametrize("mode, moves", [("inference", False), ("training", True)])
def test_only_the_classifier_learns(mode, moves):
    inner = encoder()
    model = classifier(Frozen(inner, mode), 5)
    assert [tuple(w.shape) for w in model.trainable_variables] == [(16, 5), (5,)]
    assert {id(w) for w in inner.weights} <= {id(w) for w in model.variables}
    before = {w.name: w.numpy() for w in inner.weights}
    expected = tf.reduce_mean(inner(IMAGES, training=False)["3"], [1, 2]) @ model.layers[-1].kernel
    with tf.GradientTape() as tape:
        logits = model(IMAGES, training=True)
    assert np.allclose(logits, expected, atol=1e-5) != moves
    assert all(tf.reduce_any(slope != 0) for slope in tape.gradient(logits**2, model.trainable_variables))
    for weight in inner.weights:
        statistic = "moving" in weight.name
        assert np.array_equal(weight, before[weight.name]) != (moves and statistic), weight.name
    now = tf.reduce_mean(inner(IMAGES, training=False)["3"], [1, 2]) @ model.layers[-1].kernel
    np.testing.assert_allclose(model(IMAGES, training=False), now, atol=1e-5)


def test_standardized_features_have_mean_0_and_variance_1_and_only_their_statistics_move():
    inner = encoder()
    frozen = Frozen(inner, standardize=True)
    frozen.norm.momentum = 0.0  # the moving statistics are those of the last batch
    before = [w.numpy() for w in inner.weights]
    raw, levels = inner(IMAGES, training=False), frozen(IMAGES, training=True)
    cells = raw["3"].numpy().reshape(-1, 16)
    wanted = (cells - cells.mean(0)) / np.sqrt(cells.var(0) + 1e-5)
    for training in (True, False):
        found = frozen(IMAGES, training=training)["3"].numpy().reshape(-1, 16)
        np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=1e-3)
    np.testing.assert_array_equal(levels["2"], raw["2"])
    assert not frozen.trainable_weights and len(frozen.non_trainable_weights) == len(inner.weights) + 2
    for one, other in zip(before, inner.weights):
        np.testing.assert_array_equal(one, other)


def test_it_is_saved_and_found_as_the_encoder_it_is(tmp_path):
    inner, again = encoder(), encoder()
    frozen = Frozen(inner)
    assert frozen.output_specs == inner.output_specs
    segmenter = tf.train.Checkpoint(backbone=frozen)  # where a segmenter's training run has it
    run = tf.train.Checkpoint(model=segmenter).write(str(tmp_path / "run"))
    for path in (save_backbone(frozen, str(tmp_path / "backbone")), run):
        again.set_weights([np.zeros(w.shape) for w in again.weights])
        load_backbone(again, path)
        for one, other in zip(inner.weights, again.weights):
            np.testing.assert_array_equal(one, other)


def test_another_mode_is_refused():
    with pytest.raises(ValueError, match=r"must be inference or training\. Received mode='train'"):
        Frozen(encoder(), "train")
