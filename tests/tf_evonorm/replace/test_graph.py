"""What follows a normalization: activations in every spelling, and what lies between the two."""

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm import BatchNormAct, EvoNormB0, norm_act_places, replace_norm_act
from tf_evonorm.keras_generation import KERAS_2

layers = tf.keras.layers
BETWEEN = [
    (2, lambda: layers.MaxPooling2D()),
    (2, lambda: layers.AveragePooling2D(2)),
    (2, lambda: layers.GlobalAveragePooling2D()),
    (2, lambda: layers.UpSampling2D()),
    (2, lambda: layers.GaussianNoise(0.1)),
    (2, lambda: layers.GaussianDropout(0.1)),
    (2, lambda: layers.AlphaDropout(0.1)),
    (2, lambda: layers.Dropout(0.1)),
    (2, lambda: layers.SpatialDropout2D(0.1)),
    (2, lambda: layers.ZeroPadding2D()),
    (2, lambda: layers.Cropping2D()),
    (2, lambda: layers.Reshape((64, 4))),
    (2, lambda: layers.Permute((2, 1, 3))),
    (2, lambda: layers.Flatten()),
    (2, lambda: layers.ActivityRegularization(0.1)),
    (2, lambda: layers.Activation("linear")),
    (2, lambda: layers.Resizing(4, 4)),
    (2, lambda: layers.RandomFlip()),
    (2, lambda: OwnDropout(0.1)),
    (2, lambda: OwnPadding()),
    (2, lambda: layers.Lambda(lambda x: x[:, :4])),
    (1, lambda: layers.MaxPooling1D()),
    (1, lambda: layers.AveragePooling1D(2)),
    (1, lambda: layers.UpSampling1D()),
    (1, lambda: layers.ZeroPadding1D()),
    (1, lambda: layers.Cropping1D()),
    (1, lambda: layers.SpatialDropout1D(0.1)),
    (3, lambda: layers.ZeroPadding3D()),
    (3, lambda: layers.MaxPooling3D()),
    (3, lambda: layers.UpSampling3D()),
    (3, lambda: layers.Cropping3D()),
]


class OwnDropout(layers.Dropout):
    pass


class OwnPadding(layers.Layer):
    def call(self, inputs):
        return tf.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")


class OwnFunction(layers.Layer):
    def call(self, inputs):
        return inputs * tf.sigmoid(inputs)


def image(rank=2):
    return tf.keras.Input((8,) * rank + (4,))


@pytest.mark.parametrize("rank, make", BETWEEN, ids=[f"{rank}-{make().name}" for rank, make in BETWEEN])
def test_an_activation_behind_a_layer_that_values_pass_is_refused(rank, make):
    x = images = image(rank)
    middle = make()
    x = layers.ReLU(name="act")(middle(layers.BatchNormalization(name="first")(x)))
    x = layers.ReLU()(layers.BatchNormalization(name="second", axis=-1)(x))
    model = tf.keras.Model(images, x)
    with pytest.raises(ValueError, match=rf"at once. Received first, then {middle.name}, then act"):
        norm_act_places(model)
    assert [place.normalization for place in norm_act_places(model, "first")] == ["second"]


@pytest.mark.parametrize("end", ["conv", "sum"])
def test_pooling_before_a_convolution_or_a_sum_ends_a_branch(end):
    """As in Xception, whose blocks end in normalization, pooling and a sum; and in squeeze and excitation."""
    images = image()
    x = layers.MaxPooling2D()(layers.BatchNormalization(name="bn")(images))
    x = layers.Conv2D(4, 1)(x) if end == "conv" else layers.Add()([x, layers.AveragePooling2D(2)(images)])
    x = layers.ReLU()(layers.BatchNormalization(name="next")(x))
    assert [place.apply_act for place in norm_act_places(tf.keras.Model(images, x))] == [False, True]


def test_an_activation_at_the_start_of_nested_models_is_found_behind_all_that_values_pass():
    pooled = tf.keras.Sequential([tf.keras.Input((8, 8, 4)), layers.MaxPooling2D()], name="pooled")
    inner = tf.keras.Sequential([tf.keras.Input((4, 4, 4)), layers.Dropout(0.1), layers.ReLU(name="act")], name="inner")
    images = image()
    model = tf.keras.Model(images, inner(pooled(layers.BatchNormalization(name="bn")(images))))
    with pytest.raises(ValueError, match=r"must lie in one model. Received bn, read by the model pooled.*act"):
        norm_act_places(model)


def test_functions_of_the_user_are_kept_with_what_they_refer_to():
    scale = tf.constant(3.0)
    images = tf.keras.Input((4, 4, 3))
    x = layers.Lambda(lambda x, shift: tf.sin(x) * scale + shift, (4, 4, 3), arguments={"shift": 2.0}, name="own")(
        images
    )
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(2, 1)(x)))
    replaced = replace_norm_act(tf.keras.Model(images, x), EvoNormB0)
    values = tf.reshape(tf.range(48.0), (1, 4, 4, 3))
    np.testing.assert_allclose(replaced.get_layer("own")(values), tf.sin(values) * 3 + 2)


def test_an_unknown_function_of_a_users_layer_is_refused():
    images = image()
    model = tf.keras.Model(images, OwnFunction(name="own")(layers.BatchNormalization(name="bn")(images)))
    with pytest.raises(ValueError, match=r"Received bn, read by own \(OwnFunction\), which may be its activation"):
        norm_act_places(model)


def swish_of_layers(x):
    return layers.Multiply(name="act")([x, layers.Activation("sigmoid")(x)])


def swish_gate_first(x):
    return layers.Activation("sigmoid")(x) * x


def hard_swish(x):
    return layers.Multiply(name="act")([x, layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)])


def mish(x):
    return x * layers.Activation("tanh")(layers.Activation("softplus")(x))


def gelu(x):
    """The approximation by tanh (Hendrycks and Gimpel 2016), with constants on either side."""
    return 0.5 * x * (1.0 + layers.Activation("tanh")(0.7978845608 * (x + 0.044715 * x * x * x)))


def hard_swish_of_numpy(x):
    return x * np.clip(x + 3, 0, 6) / 6


ARITHMETIC = {
    swish_of_layers: lambda x: x / (1 + np.exp(-x)),
    swish_gate_first: lambda x: x / (1 + np.exp(-x)),
    hard_swish: hard_swish_of_numpy,
    mish: lambda x: x * np.tanh(np.log1p(np.exp(x))),
    gelu: lambda x: 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3))),
}


@pytest.mark.parametrize("build", ARITHMETIC, ids=lambda build: build.__name__)
def test_activations_written_as_arithmetic_are_absorbed(build):
    """The model computes the formula of NumPy, and the copy gives the new layer's values, unchanged."""
    images = image()
    x = build(layers.BatchNormalization(name="bn")(images))
    model = tf.keras.Model(images, x)
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    z = np.asarray(model.get_layer("bn")(pixels))
    np.testing.assert_allclose(model(pixels), ARITHMETIC[build](z.astype("float64")), rtol=1e-4, atol=1e-5)
    (place,) = norm_act_places(model)
    assert place.apply_act and len(place.activations) > 1
    new = replace_norm_act(model, EvoNormB0)
    np.testing.assert_array_equal(new(pixels), new.get_layer("bn")(pixels))


@pytest.mark.skipif(not KERAS_2, reason="Keras 3 has no TF functions of symbolic tensors")
def test_activations_of_tensorflow_functions_are_absorbed(tmp_path):
    images = image()
    x = layers.BatchNormalization(name="bn1")(images)
    x = tf.multiply(0.5, x) * (1.0 + tf.math.erf(x / 1.4142135))
    x = layers.BatchNormalization(name="bn2")(layers.Conv2D(4, 1)(x))
    x = x * tf.nn.sigmoid(x)
    new = replace_norm_act(tf.keras.Model(images, x), EvoNormB0)
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    assert [place.apply_act for place in norm_act_places(new)] == [True, True]
    new.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(tf.keras.models.load_model(tmp_path / "model.keras")(pixels), new(pixels))


@pytest.mark.skipif(KERAS_2, reason="Keras 2 has no keras.ops")
@pytest.mark.parametrize("name", ["relu", "silu", "hard_swish", "gelu", "leaky_relu", "elu", "swish_by_hand"])
def test_operations_of_keras_3_are_activations(name, tmp_path):
    ops = tf.keras.ops
    images = image()
    x = layers.BatchNormalization(name="bn")(images)
    x = x * ops.sigmoid(x) if name == "swish_by_hand" else getattr(ops, name)(x)
    new = replace_norm_act(tf.keras.Model(images, ops.mean(x, axis=(1, 2))), EvoNormB0)
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    wanted = tf.reduce_mean(new.get_layer("bn")(pixels), [1, 2])
    np.testing.assert_allclose(new(pixels), wanted, rtol=1e-5, atol=1e-6)
    new.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(tf.keras.models.load_model(tmp_path / "model.keras")(pixels), new(pixels))


def test_a_gate_that_reads_other_positions_is_no_activation():
    """Squeeze and excitation: the product stays, and the normalization before it stands alone."""
    images = image()
    x = layers.BatchNormalization(name="bn")(images)
    gate = layers.Reshape((1, 1, 4))(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Conv2D(4, 1, activation="sigmoid")(gate)])
    x = layers.ReLU()(layers.BatchNormalization(name="next")(x))
    assert [place.apply_act for place in norm_act_places(tf.keras.Model(images, x))] == [False, True]


def test_two_different_activations_of_one_normalization_are_refused():
    images = image()
    x = layers.BatchNormalization(name="bn")(images)
    branches = [layers.ReLU(name="relu")(x), layers.Activation("tanh", name="tanh")(x)]
    with pytest.raises(ValueError, match=r"feed one activation. Received bn, read by relu, tanh, which differ"):
        norm_act_places(tf.keras.Model(images, layers.Concatenate()(branches)))
    branches = [layers.LeakyReLU(0.1, name="a")(x), layers.LeakyReLU(0.3, name="b")(x)]
    with pytest.raises(ValueError, match=r"feed one activation. Received bn, read by a, b, which differ"):
        norm_act_places(tf.keras.Model(images, layers.Concatenate()(branches)))


def test_two_equal_activations_of_one_normalization_are_absorbed():
    images = image()
    x = layers.BatchNormalization(name="bn", epsilon=1e-5)(images)
    model = tf.keras.Model(images, layers.Concatenate()([layers.ReLU(name="a")(x), layers.ReLU(name="b")(x)]))
    assert norm_act_places(model)[0].activations == ("a", "b")
    new = replace_norm_act(model, BatchNormAct)
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    np.testing.assert_allclose(new(pixels), model(pixels), rtol=1e-5, atol=1e-6)
