"""Pre-training by `fit` under every setting that Keras offers for it gives what a plain `fit` gives."""

import numpy as np
import pytest
import tensorflow as tf

import tf_evonorm
import tf_pixpro
from tf_evonorm.keras_generation import KERAS_2

AUTO = {} if KERAS_2 else {"jit_compile": "auto"}  # Keras 3 compiles by itself what can be compiled


def trained(seed=0, steps=4, **options):
    """(weights, losses of the epochs) after two epochs on the same four batches of four images."""
    tf.keras.utils.set_random_seed(seed)
    images = tf.keras.Input((32, 32, 3))
    features = tf.keras.layers.Conv2D(8, 8, strides=8, use_bias=False)(images)
    encoder = tf.keras.Model(images, {"5": tf_evonorm.BatchNormAct(synchronized=True)(features)})
    head = tf_pixpro.ProjectionHead(hidden=8, features=4)
    model = tf_pixpro.PixPro(encoder, head, tf_pixpro.PixelPropagation(), steps=2 * steps)
    model.compile(tf_pixpro.LARS(0.5, weight_decay=1e-5), **options)
    history = model.fit(batches(steps), epochs=2, verbose=0).history
    assert model.optimizer.iterations == model.momentum_step == 2 * steps
    return model.get_weights(), history["loss"]


def batches(steps):
    random = np.random.default_rng(0)
    views = random.normal(size=(2, 4 * steps, 32, 32, 3)).astype(np.float32)
    boxes = np.tile(np.float32([0, 0, 1, 1]), (4 * steps, 1))
    return tf.data.Dataset.from_tensor_slices(
        {"view1": views[0], "view2": views[1], "box1": boxes, "box2": boxes}
    ).batch(4, drop_remainder=True)


@pytest.fixture(scope="module")
def plain():
    return trained(jit_compile=False)


def assert_same(got, wanted):
    for one, other in zip(got[0], wanted[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [AUTO, {"jit_compile": True}, {"steps_per_execution": 2, "jit_compile": False}, {"run_eagerly": True}],
    ids=["auto", "xla", "steps_per_execution", "eager"],
)
def test_each_way_of_running_the_step(plain, options):
    assert_same(trained(**options), plain)


def test_two_replicas_are_one(plain, two_replicas):
    with two_replicas.scope():
        got = trained(**AUTO)
    assert_same((got[0], plain[1]), plain)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_near(plain, dtype):
    tf.keras.mixed_precision.set_global_policy(f"mixed_{dtype}")
    try:
        weights, losses = trained()
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert all(weight.dtype in (np.float32, np.int64, np.int32) for weight in weights)
    np.testing.assert_allclose(losses, plain[1], atol=0.05)
