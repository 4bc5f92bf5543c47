"""The pixel consistency loss against the authors' numbers."""

import numpy as np
import pytest
import tensorflow as tf
from reference import channels_last, notes

from tf_pixpro.pretext.losses import pixel_consistency


def test_values_and_gradients_are_the_authors(golden):
    archive = golden("pixpro/a_regression_loss.npz")
    for case in notes(archive)["cases"]:
        key = f"c{case['id']}/"
        query, target = (tf.constant(channels_last(archive[key + name]), tf.float64) for name in "qk")
        with tf.GradientTape() as tape:
            tape.watch([query, target])
            per_image = pixel_consistency(query, target, archive[key + "pos_mask"])
            loss = tf.reduce_mean(per_image)
        # The reference keeps its mask sum in float32, hence 3e-6.
        np.testing.assert_allclose(per_image, archive[key + "per_image_loss"], rtol=3e-6, atol=1e-12, err_msg=key)
        np.testing.assert_allclose(loss, archive[key + "loss"], rtol=3e-6, atol=1e-12, err_msg=key)
        for gradient, name in zip(tape.gradient(loss, [query, target]), ("grad_q", "grad_k")):
            expected = channels_last(archive[key + name])
            np.testing.assert_allclose(gradient, expected, rtol=3e-6, atol=1e-12, err_msg=key + name)


def test_float32_stays_near_double_precision(golden):
    archive = golden("pixpro/a_regression_loss.npz")
    for case in notes(archive)["cases"]:
        key = f"c{case['id']}/"
        loss = pixel_consistency(
            channels_last(archive[key + "q"]), channels_last(archive[key + "k"]), archive[key + "pos_mask"]
        )
        np.testing.assert_allclose(tf.reduce_mean(loss), archive[key + "loss"], rtol=5e-6, atol=5e-7, err_msg=key)


def test_identical_unit_features_with_every_pair_positive_give_minus_two():
    features = tf.ones([2, 3, 3, 1])
    np.testing.assert_allclose(pixel_consistency(features, features, tf.ones([2, 9, 9], tf.bool)), [-2, -2], rtol=1e-6)


def test_maps_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="maps of one shape"):
        pixel_consistency(tf.ones([1, 3, 3, 2]), tf.ones([1, 2, 3, 2]), tf.ones([1, 9, 6]))
