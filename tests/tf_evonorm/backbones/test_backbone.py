"""The contract of every backbone: it saves, loads, compiles, runs in half precision and serves Model Garden."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm import EvoNormB0, EvoNormS0, backbones

S0 = functools.partial(EvoNormS0, groups="auto")
# name -> (a narrow builder of norm_act, norm_acts with activation, without). Counted from the architectures.
SMALL = {
    "resnet": (functools.partial(backbones.resnet, 18, width=1 / 16), 1 + 8, 8 + 3),
    "preactivation_resnet": (functools.partial(backbones.preactivation_resnet, 18, width=1 / 16), 2 * 8 + 1, 0),
    "mobilenetv2": (functools.partial(backbones.mobilenetv2, width=0.1), 1 + 16 * 2 + 1 + 1, 17),
    "mnasnet": (functools.partial(backbones.mnasnet, width=0.1), 1 + 16 * 2 + 1 + 1, 17),
    "efficientnet": (functools.partial(backbones.efficientnet, "b0", width=0.1), 1 + 15 * 2 + 1 + 1, 16),
}
SLOW = pytest.param("efficientnet", S0, marks=pytest.mark.slow)


def images_of(size=64):
    return np.random.default_rng(1).normal(size=(2, size, size, 3)).astype("float32")


def assert_levels_equal(found, wanted):
    assert set(found) == set(wanted)
    for level in wanted:
        np.testing.assert_allclose(found[level], wanted[level], rtol=1e-5, atol=1e-5, err_msg=level)


@pytest.mark.parametrize("name", SMALL)
def test_norm_act_goes_where_the_design_says(name):
    build, active, alone = SMALL[name]
    asked = []

    def norm_act(**arguments):
        asked.append(arguments)
        return tf.keras.layers.Activation(
            "relu" if arguments.get("apply_act", True) else "linear", name=arguments["name"]
        )

    build(norm_act)
    assert sum(a.get("apply_act", True) for a in asked) == active
    assert sum(not a.get("apply_act", True) for a in asked) == alone


@pytest.mark.parametrize(
    "name, norm_act",
    [("resnet", None), pytest.param("efficientnet", S0, marks=pytest.mark.slow), ("preactivation_resnet", EvoNormB0)],
)
def test_keras_round_trips(name, norm_act, tmp_path):
    model = SMALL[name][0](norm_act)
    wanted = model(images_of())
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model) and loaded.output_specs == model.output_specs
    assert_levels_equal(loaded(images_of()), wanted)
    again = type(model).from_config(model.get_config())
    again.set_weights(model.get_weights())
    assert type(again) is type(model)
    assert_levels_equal(again(images_of()), wanted)


def test_headed_backbone_comes_back_as_one():
    images = tf.keras.Input((None, None, 3))
    last = tf.keras.layers.Conv2D(4, 3, strides=2)(images)
    outputs = {"2": last, "3": tf.keras.layers.Conv2D(8, 1)(last)}
    model = backbones.HeadedBackbone(inputs=images, outputs=outputs)
    again = backbones.HeadedBackbone.from_config(model.get_config())
    assert type(again) is backbones.HeadedBackbone
    assert set(again.output) == {"2", "3"} and list(again.output_specs) == ["2"]


def test_compiles_with_xla():
    model = SMALL["resnet"][0](S0)
    wanted = model(images_of())
    assert_levels_equal(tf.function(model, jit_compile=True)(tf.constant(images_of())), wanted)


def test_saved_model_answers_alike(tmp_path):
    model = SMALL["resnet"][0](None)
    module = tf.Module()
    module.model = model
    module.serve = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, 3])])
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert_levels_equal(loaded.serve(images_of()), model(images_of()))


@pytest.mark.parametrize("norm_act", [None, S0, EvoNormB0])
def test_half_precision_keeps_float32_variables(norm_act):
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = SMALL["resnet"][0](norm_act)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    levels = model(images_of(), training=True)
    assert {features.dtype.name for features in levels.values()} == {"bfloat16"}
    assert {tf.as_dtype(variable.dtype).name for variable in model.variables} == {"float32"}
    assert np.all(np.isfinite(tf.cast(levels["5"], tf.float32)))


@pytest.mark.parametrize("name", ["resnet", "preactivation_resnet"])
def test_one_step_reaches_every_weight(name):
    tf.keras.utils.set_random_seed(1)
    model = SMALL[name][0](S0)
    for variable in model.trainable_variables:  # a zero gamma would keep its branch from learning at the first step
        if "gamma" in variable.name:
            variable.assign(tf.ones_like(variable))
    with tf.GradientTape() as tape:
        levels = model(images_of(), training=True)
        loss = tf.add_n([tf.reduce_mean(tf.square(features - 1)) for features in levels.values()])
    for variable, gradient in zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables)):
        assert gradient is not None and np.any(gradient), variable.name


def test_regularizer_counts_convolutions_only():
    model = backbones.efficientnet("b0", width=0.1, kernel_regularizer=tf.keras.regularizers.L2(0.5))
    kernels = [v for v in model.trainable_variables if "kernel" in v.name]
    assert len(model.losses) == len(kernels)
    wanted = sum(0.5 * np.sum(np.square(kernel)) for kernel in kernels)
    np.testing.assert_allclose(tf.add_n(model.losses), wanted, rtol=1e-5)


def test_serves_model_garden():
    """A decoder reads the pyramid and passes the head by; a classifier reads the highest level."""
    decoders = pytest.importorskip("official.vision.modeling.decoders.fpn")
    classification = pytest.importorskip("official.vision.modeling.classification_model")
    backbone = SMALL["mobilenetv2"][0](None)
    assert list(backbone.output_specs) == ["2", "3", "4", "5"] and "6" in backbone.output
    decoder = decoders.FPN(backbone.output_specs, min_level=3, max_level=6, num_filters=8)
    pyramid = decoder(backbone(images_of(128)))
    assert {level: tuple(features.shape) for level, features in pyramid.items()} == {
        "3": (2, 16, 16, 8),
        "4": (2, 8, 8, 8),
        "5": (2, 4, 4, 8),
        "6": (2, 2, 2, 8),
    }
    specs = tf.keras.layers.InputSpec(shape=[None, 64, 64, 3])
    classifier = classification.ClassificationModel(backbone, num_classes=7, input_specs=specs)
    assert classifier(images_of()).shape == (2, 7)
    assert classifier.layers[-1].kernel.shape == (1280, 7)
