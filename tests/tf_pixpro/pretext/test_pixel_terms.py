"""PixContrast: the paper's formula, its limits, and the model that trains with it."""

import numpy as np
import pytest
import tensorflow as tf
from reference import channels_last, notes

import tf_pixpro
from tf_pixpro.geometry import positive_mask
from tf_pixpro.pretext.losses import pixel_contrast


def test_values_are_the_papers_formula(golden):
    archive = golden("pixpro/g_pixcontrast_reference.npz")
    for case in notes(archive)["cases"]:
        key = case["id"] + "/"
        maps = [tf.constant(channels_last(archive[key + name]), tf.float64) for name in "xk"]
        mask = positive_mask(archive[key + "coord_q"], archive[key + "coord_k"], (case["H"], case["W"]), case["T"])
        np.testing.assert_array_equal(tf.reduce_any(mask, -1), archive[key + "has_positive"])
        losses = pixel_contrast(*maps, mask, case["tau"])
        # The reference has no number for an image without positives; here it is 0, as in the consistency loss.
        np.testing.assert_allclose(losses, np.nan_to_num(archive[key + "per_image_loss"]), rtol=1e-10, err_msg=key)
        single = [tf.cast(features, tf.float32) for features in maps]
        np.testing.assert_allclose(pixel_contrast(*single, mask, case["tau"]), losses, rtol=1e-5, err_msg=key)


def test_gradient_is_the_slope(float64):
    random = np.random.default_rng(0)
    query, key = (tf.constant(random.normal(size=(2, 2, 3, 4))) for _ in "qk")
    mask = tf.constant(random.uniform(size=(2, 6, 6)) < 0.2)
    analytic, measured = tf.test.compute_gradient(lambda q, k: pixel_contrast(q, k, mask, 0.5), [query, key], 1e-4)
    for slope, difference in zip(analytic, measured):
        np.testing.assert_allclose(slope, difference, atol=1e-7)


def test_known_values():
    alike = tf.ones([1, 2, 2, 1])
    # Equal similarities: one positive among four is -log(1/4); all positive is 0; none is 0 and has no gradient.
    np.testing.assert_allclose(pixel_contrast(alike, alike, tf.eye(4, batch_shape=[1])), [np.log(4)], rtol=1e-6)
    np.testing.assert_allclose(pixel_contrast(alike, alike, tf.ones([1, 4, 4])), [0], atol=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(alike)
        loss = pixel_contrast(alike, alike, tf.zeros([1, 4, 4]))
    assert float(loss[0]) == 0 and not np.any(tape.gradient(loss, alike))
    # A pixel without a positive takes no part: half of the rows left is the mean of those.
    half = tf.constant(np.diag([1, 1, 0, 0])[None])
    np.testing.assert_allclose(pixel_contrast(alike, alike, half), [np.log(4)], rtol=1e-6)


def encoder():
    images = tf.keras.Input((None, None, 3))
    return tf.keras.Model(images, {"5": tf.keras.layers.Conv2D(8, 8, strides=8)(images)})


def batch():
    random = np.random.default_rng(1)
    views = {f"view{v}": random.normal(size=(4, 32, 24, 3)).astype("f") for v in (1, 2)}
    return {**views, **{f"box{v}": np.tile([[0.1 * v, 0, 0.9, 1]], (4, 1)).astype("f") for v in (1, 2)}}


def test_the_model_learns_saves_and_resumes(tmp_path):
    model = tf_pixpro.PixContrast(encoder(), tf_pixpro.ProjectionHead(8, 8), temperature=0.2, steps=20)
    model.compile(tf_pixpro.LARS(1.0))
    data = tf.data.Dataset.from_tensors(batch())
    before = model.evaluate(data, verbose=0, return_dict=True)["loss"]
    model.fit(data.repeat(15), verbose=0)
    first = model.evaluate(data, verbose=0, return_dict=True)
    assert first["loss"] < before
    assert len(model.trainable_weights) == len([*model.encoder.weights, *model.projection.trainable_weights])
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again, tf_pixpro.PixContrast) and again.temperature == 0.2
    assert again.evaluate(data, verbose=0, return_dict=True) == pytest.approx(first, rel=1e-6)


def test_both_directions_are_summed():
    model = tf_pixpro.PixContrast(encoder(), tf_pixpro.ProjectionHead(8, 8))
    given = batch()
    queries = [tf.math.l2_normalize(model.project(given[v]), -1) for v in ("view1", "view2")]
    targets = [model.target(given[v]) for v in ("view1", "view2")]
    mask = positive_mask(given["box1"], given["box2"], (4, 3), 0.7)
    expected = pixel_contrast(queries[0], targets[1], mask, 0.3)
    expected += pixel_contrast(queries[1], targets[0], tf.linalg.matrix_transpose(mask), 0.3)
    np.testing.assert_allclose(model.pretext_loss(given, training=False)["loss"], tf.reduce_mean(expected), rtol=1e-6)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="temperature must be positive"):
        tf_pixpro.PixContrast(encoder(), temperature=0)
    with pytest.raises(ValueError, match="maps of one shape"):
        pixel_contrast(tf.ones([1, 3, 3, 2]), tf.ones([1, 2, 3, 2]), tf.ones([1, 9, 6]))
