"""BigGAN-deep: the published numbers of parameters, shapes and gradients at every resolution, XLA, saving."""

import numpy as np
import pytest
import tensorflow as tf

import tf_evonorm
from tf_evonorm import biggan

KEY = [1, 2]
slow = pytest.mark.slow


def tiny(resolution=32, norm_act=tf_evonorm.BatchNormAct):
    """Both networks with the fewest channels, attention switched on."""
    generator = biggan.generator(
        resolution, width=1 / 32, num_classes=3, latent=8, embedding=4, norm_act=norm_act, attention=resolution // 2
    )
    discriminator = biggan.discriminator(resolution, width=1 / 32, num_classes=3, attention=resolution // 2)
    for network in (generator, discriminator):
        network.get_layer("attention").gain.assign(1.0)  # at 0 its kernels have no gradient
    return generator, discriminator


def scored(generator, discriminator, training=True):
    """Images, their scores, and the gradients of the scores in the weights of both networks."""
    z, labels = tf.random.stateless_normal([2, 8], KEY), tf.constant([0, 2])
    weights = generator.trainable_weights + discriminator.trainable_weights
    with tf.GradientTape() as tape:
        images = generator([z, labels], training=training)
        scores = discriminator([images, labels], training=training)
    return images, scores, [tf.convert_to_tensor(g) for g in tape.gradient(scores, weights)]


@slow
@pytest.mark.parametrize("resolution, count, released", [(128, 50244484, 50.4), (256, 55736708, 55.9)])
def test_parameters_of_the_generator(monkeypatch, resolution, count, released):
    """50,244,484: asserted in compare_gan's resnet_biggan_deep_test.py. 50.4 and 55.9 million: the released modules,
    whose last convolution has 128 channels of which three are used; counted in the README of
    huggingface/pytorch-pretrained-BigGAN."""
    monkeypatch.setattr(
        tf.keras.initializers.Orthogonal, "__call__", lambda _, shape, dtype=None: tf.zeros(shape, dtype)
    )
    for channels, expected in ((3, count), (128, released)):
        network = biggan.generator(resolution, norm_act=tf_evonorm.BatchNormAct, output_channels=channels)
        found = sum(w.shape.num_elements() for w in network.trainable_weights)
        assert expected == (found if channels == 3 else round(found / 1e6, 1))


def test_parameters_of_the_discriminator():
    """Asserted in compare_gan's resnet_biggan_deep_test.py; 34.6 million in the paper."""
    with tf.Graph().as_default():  # nothing is drawn or stored
        network = biggan.discriminator(128)
        assert sum(w.shape.num_elements() for w in network.trainable_weights) == 34590210


@pytest.mark.parametrize(
    "resolution", [32, pytest.param(64, marks=slow), pytest.param(128, marks=slow), pytest.param(256, marks=slow)]
)
def test_shapes_and_gradients(resolution):
    networks = tiny(resolution)
    images, scores, gradients = scored(*networks)
    assert images.shape == (2, resolution, resolution, 3) and scores.shape == (2,)
    assert images.dtype == scores.dtype == tf.float32 and 0 < np.abs(images).max() <= 1
    weights = [weight for network in networks for weight in network.trainable_weights]
    for weight, gradient in zip(weights, gradients):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, weight.name
    generator, _ = networks
    other = generator([tf.random.stateless_normal([2, 8], KEY), tf.constant([1, 2])])
    same = generator([tf.random.stateless_normal([2, 8], KEY), tf.constant([0, 2])])
    assert np.abs(other[0] - same[0]).max() > 1e-3  # the class matters
    np.testing.assert_allclose(other[1], same[1], atol=1e-5)  # and that of one image to no other


@pytest.mark.thorough
def test_xla_agrees():
    generator, discriminator = tiny()
    scored(generator, discriminator)  # the power iteration finds its vectors
    z, labels = tf.random.stateless_normal([2, 8], KEY), tf.constant([0, 2])
    images = tf.random.stateless_uniform([2, 32, 32, 3], KEY, -1, 1)
    for network, inputs, first in ((generator, [z, labels], "seed"), (discriminator, [images, labels], "stem")):
        weight, before, results = network.get_layer(f"{first}_spectral").layer.kernel, network.get_weights(), []

        def step(network=network, inputs=inputs, weight=weight):
            with tf.GradientTape() as tape:
                y = network(inputs, training=True)
            return y, tape.gradient(y, weight)

        for jit in (False, True):
            network.set_weights(before)
            results.append(tf.function(step, jit_compile=jit)())
        for got, want in zip(*results):
            np.testing.assert_allclose(got, want, atol=1e-3 * np.abs(want).max())


@slow
def test_a_generator_is_saved_whole(tmp_path):
    generator, _ = tiny()
    inputs = [tf.random.stateless_normal([2, 8], KEY), tf.constant([0, 2])]
    want = generator(inputs)
    generator.save(tmp_path / "generator.keras")
    np.testing.assert_array_equal(tf.keras.models.load_model(tmp_path / "generator.keras")(inputs), want)


def test_doubling_is_that_of_keras():
    x = tf.random.stateless_normal([2, 3, 4, 5], KEY)
    np.testing.assert_array_equal(biggan.Doubled()(x), tf.keras.layers.UpSampling2D()(x))


def test_mistakes():
    with pytest.raises(ValueError, match=r"one of 32, 64, 128, 256 pixels\. Received resolution=96"):
        biggan.generator(96)
    with pytest.raises(ValueError, match=r"multiples of 4 channels\. Received width=0\.01"):
        biggan.discriminator(128, width=0.01)
