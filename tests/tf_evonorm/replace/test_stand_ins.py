"""The layers that stand where an absorbed activation stood: values, masks, precision, shared activations."""

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm import BatchNormAct, EvoNormB0, replace_norm_act
from tf_evonorm.replace import PassThrough, SharedActivation

layers = tf.keras.layers


def test_pass_through_returns_its_input_and_hands_masks_on():
    words = tf.keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(9, 4, mask_zero=True)(words)
    model = tf.keras.Model(words, [layers.LSTM(3, name="lstm")(PassThrough()(embedded)), embedded])
    numbers = np.array([[3, 4, 0, 0, 0]])
    found, vectors = model(numbers)
    wanted = model.get_layer("lstm")(tf.constant(np.asarray(vectors)), mask=tf.constant(numbers != 0))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_pass_through_of_a_file_without_options_loads():
    assert PassThrough.from_config({"name": "act", "trainable": True, "dtype": "float32"}).name == "act"


def residual(activation):
    """One activation object after a normalization and after a sum, as in models carried over from PyTorch."""
    images = tf.keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", name="conv1")(images)
    x = activation(layers.BatchNormalization(name="bn1", epsilon=1e-5)(x))
    x = layers.Conv2D(4, 3, padding="same", name="conv2")(x)
    x = layers.BatchNormalization(name="bn2", epsilon=1e-5)(x)
    x = activation(layers.Add()([x, images]))
    return tf.keras.Model(images, activation(layers.BatchNormalization(name="bn3", epsilon=1e-5)(x)))


@pytest.mark.parametrize("make", [layers.ReLU, layers.PReLU, lambda name: layers.Activation("tanh", name=name)])
def test_one_activation_at_several_positions_stays_where_no_normalization_is(make, tmp_path):
    model = residual(make(name="act"))
    new = replace_norm_act(model, EvoNormB0)
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    x = new.get_layer("bn1")(model.get_layer("conv1")(pixels))
    x = new.get_layer("bn2")(model.get_layer("conv2")(x)) + pixels
    wanted = new.get_layer("bn3")(model.get_layer("act")(x))
    np.testing.assert_allclose(new(pixels), wanted, rtol=1e-5, atol=1e-5)
    assert isinstance(new.get_layer("act"), SharedActivation)
    new.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(tf.keras.models.load_model(tmp_path / "model.keras")(pixels), new(pixels))
    again = replace_norm_act(new, EvoNormB0)  # the copy of a copy
    np.testing.assert_allclose(again(pixels), new(pixels), rtol=1e-6, atol=1e-6)


def test_one_relu_everywhere_gives_the_same_network_with_batch_norm():
    model = residual(layers.ReLU(name="act"))
    new = replace_norm_act(model, BatchNormAct)
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    np.testing.assert_allclose(new(pixels), model(pixels), rtol=1e-5, atol=1e-5)


def test_an_activation_shared_with_another_model_acts_there():
    """The nested model has no normalization: its ReLU, which is also that of `bn`, must still act."""
    relu = layers.ReLU(name="act")
    start = tf.keras.Input((8, 8, 4))
    inner = tf.keras.Model(start, relu(layers.Conv2D(4, 1, name="conv")(start)), name="inner")
    images = tf.keras.Input((8, 8, 4))
    model = tf.keras.Model(images, inner(relu(layers.BatchNormalization(name="bn", epsilon=1e-5)(images))))
    new = replace_norm_act(model, BatchNormAct)
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    np.testing.assert_allclose(new(pixels), model(pixels), rtol=1e-5, atol=1e-5)
    assert np.asarray(new(pixels)).min() == 0
