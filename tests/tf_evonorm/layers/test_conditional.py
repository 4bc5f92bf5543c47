"""The conditional layer against the plain one, and spectral normalization against NumPy's singular values."""

import functools

import numpy as np
import pytest
import tensorflow as tf

import tf_evonorm
from tf_evonorm.layers.conditional import ConditionalNormAct, SpectralNormalization

LAYERS = {
    "b0": functools.partial(tf_evonorm.EvoNormB0, jit_compile=False),
    "b1": functools.partial(tf_evonorm.EvoNormB1, jit_compile=False),
    "b2": functools.partial(tf_evonorm.EvoNormB2, jit_compile=False),
    "s0": functools.partial(tf_evonorm.EvoNormS0, groups=4, jit_compile=False),
    "s1": functools.partial(tf_evonorm.EvoNormS1, groups=4, jit_compile=False),
    "s2": functools.partial(tf_evonorm.EvoNormS2, groups=4, jit_compile=False),
    "bn": tf_evonorm.BatchNormAct,
    "gn": functools.partial(tf_evonorm.GroupNormAct, groups=4),
    "gn-swish": functools.partial(tf_evonorm.GroupNormAct, groups=4, activation="swish_v"),
    "ln": tf_evonorm.LayerNormAct,
    "pixel": tf_evonorm.PixelNormAct,
    "frn": tf_evonorm.FilterResponseNormAct,
}
X = np.random.default_rng(0).normal(0.3, 1.5, [4, 5, 3, 8]).astype("float32")


def one_condition(seed=1):
    return tf.repeat(tf.random.stateless_normal([1, 6], [seed, 0]), len(X), 0)


@pytest.mark.parametrize("name", LAYERS)
def test_one_condition_for_all_is_the_plain_layer(name):
    conditional, plain = ConditionalNormAct(LAYERS[name](affine=False)), LAYERS[name]()
    condition = one_condition()
    conditional([X, condition], training=True)
    plain.build(X.shape)
    plain.gamma.assign(1 + (condition @ conditional.gamma.layer.kernel)[0])
    plain.beta.assign((condition @ conditional.beta.layer.kernel)[0])
    for weight, other in zip(plain.non_trainable_weights, conditional.layer.non_trainable_weights):
        weight.assign(other)
    for training in (True, False):
        results = []
        inner = conditional.layer.trainable_weights  # v, if any
        for layer, v in ((conditional, inner), (plain, plain.trainable_weights[2:])):
            with tf.GradientTape() as tape:
                x = tf.constant(X)
                tape.watch(x)
                y = layer([x, condition] if layer is conditional else x, training=training)
                loss = tf.reduce_sum(y * tf.reshape(tf.sin(tf.range(480.0)), y.shape))
            results.append([y, *tape.gradient(loss, [x, *v])])
        for got, want in zip(*results):
            np.testing.assert_allclose(got, want, atol=2e-5 * max(1, np.abs(want).max()))


def test_gamma_is_centred_at_one():
    for name in ("s0", "bn"):
        conditional = ConditionalNormAct(LAYERS[name](affine=False))
        np.testing.assert_allclose(conditional([X, tf.zeros([4, 6])]), LAYERS[name]()(X), atol=1e-6)


def test_each_sample_has_its_own_gamma_and_beta():
    layer = ConditionalNormAct(LAYERS["s0"](affine=False))
    conditions = tf.random.stateless_normal([4, 6], [2, 0])
    whole = layer([X, conditions])
    for i in range(4):
        np.testing.assert_allclose(whole[i : i + 1], layer([X[i : i + 1], conditions[i : i + 1]]), atol=1e-5)


def test_config_round_trip_and_weights():
    layer = ConditionalNormAct(LAYERS["b0"](affine=False))
    want = layer([X, one_condition()])
    assert len(layer.trainable_weights) == 3 and len(layer.layer.weights) == 2  # v; no gamma and beta beside W and V
    other = ConditionalNormAct.from_config(layer.get_config())
    other.build([X.shape, (4, 6)])
    other.set_weights(layer.get_weights())
    np.testing.assert_array_equal(other([X, one_condition()]), want)


def test_a_layer_with_an_affine_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r"Received affine=True, axis=-1\. Make it with affine=False"):
        ConditionalNormAct(tf_evonorm.EvoNormB0())


def test_pixel_norm_is_that_of_numpy():
    x = X.astype("float64")
    expected = np.maximum(x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-5), 0)
    np.testing.assert_allclose(tf_evonorm.PixelNormAct()(X), expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_the_largest_singular_value_becomes_one(policy):
    layer = SpectralNormalization(tf.keras.layers.Conv2D(5, 3, dtype=policy))
    for _ in range(200):
        y = layer(X, training=True)
    kernel = layer.layer.kernel.numpy()
    np.testing.assert_allclose(np.linalg.svd(kernel.reshape(-1, 5))[1].max(), 1, atol=1e-5)
    assert y.dtype == layer.layer.compute_dtype and layer.layer.kernel.dtype == tf.float32


def test_a_frozen_kernel_stays():
    layer = SpectralNormalization(tf.keras.layers.Dense(5))
    layer(X)
    before = layer.layer.kernel.numpy()
    layer.trainable = False
    layer(X, training=True)
    np.testing.assert_array_equal(layer.layer.kernel, before)
    layer.trainable = True
    layer(X, training=True)
    assert np.abs(layer.layer.kernel - before).max() > 1e-3
