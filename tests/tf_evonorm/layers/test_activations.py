"""Activations behind a normalization: NumPy's formulas in float64 on both generations of Keras, and configs that bring
them back."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm import BatchNormAct, FilterResponseNormAct, GroupNormAct, LayerNormAct, PixelNormAct
from tf_evonorm.layers import activations

SIGMOID = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
FORMULAS = {
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "relu6": lambda z: np.clip(z, 0, 6),
    "leaky_relu": lambda z: np.where(z < 0, 0.2 * z, z),
    "elu": lambda z: np.where(z < 0, np.expm1(z), z),
    "gelu": lambda z: z * 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2))),
    "silu": lambda z: z * SIGMOID(z),
    "swish": lambda z: z * SIGMOID(z),
    "hard_silu": lambda z: z * np.clip(z + 3, 0, 6) / 6,
    "hard_swish": lambda z: z * np.clip(z + 3, 0, 6) / 6,
    "mish": lambda z: z * np.tanh(np.log1p(np.exp(z))),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "selu": lambda z: 1.0507009873554805 * np.where(z < 0, 1.6732632423543772 * np.expm1(z), z),
    "swish_v": lambda z: z * SIGMOID(z),
}
BASELINES = (BatchNormAct, GroupNormAct, LayerNormAct, PixelNormAct)
X = np.random.default_rng(0).normal(0.3, 2, (4, 5, 3, 8))


def made(layer, activation="relu", **options):
    options = {"groups": 4, **options} if layer is GroupNormAct else options
    return layer(activation=activation, gamma_initializer=tf.keras.initializers.Constant(3), **options)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("layer", BASELINES)
def test_each_name_is_its_formula(float64, layer, name):
    linear = made(layer, apply_act=False)(X, training=True)
    # TensorFlow's gelu divides by a float32 square root of 2.
    np.testing.assert_allclose(
        made(layer, name)(X, training=True), FORMULAS[name](np.asarray(linear)), atol=2e-7 if name == "gelu" else 1e-12
    )


@pytest.mark.parametrize("name", ["hard_silu", "hard_swish"])
def test_the_gradient_of_hard_silu(float64, name):
    theory, numeric = tf.test.compute_gradient(
        activations.activation(name), [tf.constant([-4.0, -2, 0.5, 2, 4], tf.float64)]
    )
    np.testing.assert_allclose(theory[0], numeric[0], atol=1e-8)


def test_hard_silu_does_not_overflow_in_half_precision():
    z = tf.constant([-60000, 60000], tf.float16)
    np.testing.assert_allclose(activations.hard_silu(z), [0, 60000], rtol=1e-3)


@pytest.mark.parametrize("name", [*FORMULAS, "layer", None])
def test_configs_and_files_bring_the_activation_back(tmp_path, name):
    activation = tf.keras.layers.LeakyReLU(0.4) if name == "layer" else name
    images = tf.keras.Input((5, 3, 8))
    model = tf.keras.Model(images, BatchNormAct(activation)(images))
    copy = BatchNormAct.from_config(model.layers[1].get_config())
    assert copy.get_config() == model.layers[1].get_config()
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(X.astype("float32")), model(X.astype("float32")))


def test_a_layer_as_activation_acts():
    x = X.astype("float32")
    z = np.asarray(made(GroupNormAct, apply_act=False)(x))
    np.testing.assert_allclose(
        made(GroupNormAct, tf.keras.layers.LeakyReLU(0.4))(x), np.where(z < 0, 0.4 * z, z), rtol=1e-6
    )


def test_the_result_has_the_dtype_of_the_policy():
    layer = made(GroupNormAct, tf.keras.layers.LeakyReLU(0.4), dtype="mixed_float16")
    assert layer(X.astype("float32")).dtype == tf.float16


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="rleu"):
        BatchNormAct("rleu")
    with pytest.raises((TypeError, ValueError)):
        FilterResponseNormAct(activation="relu")


@pytest.mark.parametrize("name, known", [*((name, True) for name in FORMULAS), ("softmax", False)])
def test_named_functions_of_one_value_are_element_wise(name, known):
    assert activations.is_element_wise(activations.activation(name)) == known


def test_a_function_of_the_user_is_not_taken_for_element_wise():
    assert not activations.is_element_wise(lambda z: z - tf.reduce_mean(z))
