"""Replacing normalizations in Keras' and the user's models: same graph, same other weights, clear refusals."""

import functools
import io
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from reference_weights import double_precision, largest_error, randomize

import tf_evonorm
from tf_evonorm import BatchNormAct, EvoNormB0, EvoNormS0, backbones, norm_act_places, replace_norm_act
from tf_evonorm.replace import Position

layers = tf.keras.layers
S0 = functools.partial(EvoNormS0, groups="auto")
# How many normalizations have an activation and how many stand alone, counted from the architectures: ResNet50 has a
# stem, 16 blocks of three and 4 shortcuts; V2 the 16 blocks and an end; MobileNetV2 a stem, 17 blocks (the first
# without expansion) and a head; EfficientNetB0 the same with 16 blocks.
APPLICATIONS = {
    "ResNet50": (1 + 16 * 2, 16 + 4, dict(activation="relu", epsilon=1.001e-5)),
    "ResNet50V2": (16 * 3 + 1, 0, dict(activation="relu", epsilon=1.001e-5)),
    "MobileNetV2": (1 + 16 * 2 + 1 + 1, 17, dict(activation="relu6", epsilon=1e-3)),
    "EfficientNetB0": (1 + 15 * 2 + 1 + 1, 16, dict(activation="swish", epsilon=1e-3)),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("ResNet50", "ResNet50V2", "EfficientNetB0")]


def application(name, **settings):
    return getattr(tf.keras.applications, name)(weights=None, classes=10, classifier_activation=None, **settings)


def images_of(zipped, count, size):
    """[count, size, size, 3] float32 in -1..1 and [count] labels of evenly spread training images."""
    with zipfile.ZipFile(zipped) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("train/") and name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        chosen = names[:: len(names) // count][:count]
        pixels = [np.asarray(Image.open(io.BytesIO(archive.read(n))).resize((size, size))) for n in chosen]
    return np.stack(pixels).astype("float32") / 127.5 - 1, np.array([classes.index(n.split("/")[1]) for n in chosen])


@pytest.mark.parametrize("name", ["MobileNetV2", *SLOW])
def test_same_layer_in_every_place_gives_the_same_network(name):
    """With BatchNorm and the network's own activation put in, and its statistics copied, nothing changes."""
    active, alone, own = APPLICATIONS[name]
    with double_precision():
        model = application(name, input_shape=(64, 64, 3))
        randomize(model)
        new = replace_norm_act(model, functools.partial(BatchNormAct, **own))
    places = norm_act_places(model)
    assert (sum(p.apply_act for p in places), sum(not p.apply_act for p in places)) == (active, alone)
    for place in places:
        replaced = new.get_layer(place.normalization)
        assert isinstance(replaced, BatchNormAct) and replaced.apply_act == place.apply_act
        replaced.set_weights(model.get_layer(place.normalization).get_weights())
    images = np.random.default_rng(1).normal(size=(2, 64, 64, 3))
    assert largest_error(new(images, training=False), model(images, training=False)) < 1e-12


# The smallest of each family. Refused by name: without BatchNormalization, or with one read by an activation and more.
REFUSED = ("ConvNeXtTiny", "NASNetMobile", "VGG16")
REPLACED = (
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Large",
    "MobileNetV3Small",
    "RegNetX002",
    "RegNetY002",
    "ResNet50",
    "ResNet50V2",
    "ResNetRS50",
    "Xception",
)
FAMILIES = (*REFUSED, *REPLACED)
QUICK = ("MobileNet", "MobileNetV3Small", "VGG16")
EVERY = [n for n in dir(tf.keras.applications) if n[0].isupper()]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES])
def test_every_family_of_applications_is_replaced_or_refused_by_name(name):
    if name not in EVERY:
        pytest.skip(f"this Keras has no {name}")
    model = application(name, input_shape=(96, 96, 3))
    if name in REFUSED:
        with pytest.raises(ValueError, match=r"a (model|normalization) must .* Received \w+"):
            replace_norm_act(model, S0)
        return
    new = replace_norm_act(model, S0)
    normalizations = [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    assert normalizations and all(isinstance(new.get_layer(n), tf_evonorm.EvoNormS0) for n in normalizations)
    assert any(new.get_layer(n).apply_act for n in normalizations)
    assert not [layer for layer in new.layers if isinstance(layer, layers.BatchNormalization)]
    assert np.all(np.isfinite(new(np.ones((1, 96, 96, 3), "float32"))))


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in EVERY if name not in FAMILIES])
def test_every_other_application_is_understood_or_refused_by_name(name):
    try:
        places = norm_act_places(application(name, input_shape=(96, 96, 3)))
    except ValueError as error:
        assert name.startswith("NASNet") and "keep=" in str(error)
        return
    active = sum(place.apply_act for place in places)
    print(f"{name}: {active} normalizations with an activation, {len(places) - active} alone")  # docs/layers.md
    assert any(place.apply_act for place in places) != name.startswith(("VGG", "ConvNeXt"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet50V2", "MobileNetV2", "EfficientNetB0"])
def test_applications_train_on_real_images_with_evonorm(name, shared_data):
    images, labels = images_of(shared_data("cifar10/cifar10_jpeg.zip"), 20, 32)
    tf.keras.utils.set_random_seed(1)
    model = application(name, input_shape=(32, 32, 3))
    new = replace_norm_act(model, S0)
    assert not [layer for layer in new.layers if isinstance(layer, layers.BatchNormalization)]
    for layer in model.layers:
        if layer.weights and not isinstance(layer, layers.BatchNormalization):
            for old, kept in zip(layer.get_weights(), new.get_layer(layer.name).get_weights()):
                np.testing.assert_array_equal(kept, old)
    images = images * 127.5 + 127.5 if name == "EfficientNetB0" else images  # it scales its pixels itself
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    new.compile(tf.keras.optimizers.Adam(1e-3), loss)
    history = new.fit(images, labels, batch_size=20, epochs=12, verbose=0).history["loss"]
    assert np.all(np.isfinite(history)) and min(history[-3:]) < 0.8 * history[0], history


def small_model():
    """Two normalizations with activations, one without, one in a nested model: each kind of place."""
    stack = [tf.keras.Input((None, None, 4)), layers.BatchNormalization(name="norm"), layers.ReLU(name="act")]
    inner = tf.keras.Sequential(stack, name="inner")
    images = tf.keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="conv1")(images)
    x = layers.BatchNormalization(name="bn1")(x)
    shortcut = x = layers.Activation("swish", name="act1")(x)
    x = layers.Conv2D(4, 3, padding="same", name="conv2")(x)
    x = layers.BatchNormalization(name="bn2", gamma_initializer="zeros")(x)
    x = layers.Add(name="add")([x, shortcut])
    x = inner(x)
    x = layers.ReLU(name="act3")(layers.BatchNormalization(name="bn3")(x))
    return tf.keras.Model(images, {"features": x, "mean": layers.GlobalAveragePooling2D()(x)})


def test_places_of_a_model_of_ones_own():
    places = norm_act_places(small_model())
    assert [(p.normalization, p.apply_act) for p in places] == [
        ("bn1", True),
        ("bn2", False),
        ("inner/norm", True),
        ("bn3", True),
    ]
    assert places[0] == Position("bn1", ("act1",), True)


def test_wrong_arguments_are_reported():
    for norm_act in ("evonorm_s0", EvoNormB0(), small_model()):
        with pytest.raises(TypeError, match="norm_act must be a class or function that makes a layer"):
            replace_norm_act(small_model(), norm_act)
    with pytest.raises(TypeError, match="a Keras model comes first"):
        replace_norm_act("model", EvoNormB0)


def test_model_of_ones_own():
    tf.keras.utils.set_random_seed(1)
    model = small_model()
    before = [w.copy() for w in model.get_weights()]
    new = replace_norm_act(model, EvoNormB0)
    for old, now in zip(before, model.get_weights()):
        np.testing.assert_array_equal(now, old)
    images = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype("float32")

    x = model.get_layer("conv1")(images)
    shortcut = x = new.get_layer("bn1")(x, training=True)
    np.testing.assert_array_equal(new.get_layer("bn2").gamma, 0)
    x = new.get_layer("bn2")(model.get_layer("conv2")(x), training=True) + shortcut
    x = new.get_layer("inner").layers[0](x, training=True)
    x = new.get_layer("bn3")(x, training=True)
    found = new(images, training=True)
    np.testing.assert_allclose(found["features"], x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["mean"], tf.reduce_mean(x, [1, 2]), rtol=1e-5, atol=1e-5)


def test_result_saves_and_loads(tmp_path):
    new = replace_norm_act(small_model(), S0)
    new.save(tmp_path / "model.keras")
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype("float32")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images)["features"], new(images)["features"])


def test_own_backbones_change_their_layer():
    new = replace_norm_act(backbones.resnet(18, width=1 / 16), S0)
    assert isinstance(new, backbones.Backbone)
    assert isinstance(new.get_layer("bn1"), EvoNormS0) and new.get_layer("bn1").apply_act
    assert not new.get_layer("layer1.0.bn2").apply_act
    assert list(new.output_specs) == ["2", "3", "4", "5"]


def test_kept_names_and_input_normalization_stay():
    images = tf.keras.Input((4, 4, 3))
    scale = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 4.0, 4.0], name="scale")
    adapted = layers.Normalization(name="adapted")
    adapted.adapt(np.arange(96, dtype="float32").reshape(2, 4, 4, 3))
    x = adapted(scale(images))
    x = layers.ReLU(name="act1")(layers.BatchNormalization(name="bn1")(x))
    x = layers.ReLU(name="act2")(layers.BatchNormalization(name="bn2")(x))
    x = layers.LayerNormalization(name="ln")(x)
    model = tf.keras.Model(images, x)
    new = replace_norm_act(model, EvoNormB0, keep=("bn2",))
    kinds = {layer.name: type(layer).__name__ for layer in new.layers}
    assert (kinds["bn1"], kinds["bn2"], kinds["act2"], kinds["ln"]) == (
        "EvoNormB0",
        "BatchNormalization",
        "ReLU",
        "LayerNormalization",
    )
    pixels = np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(new.get_layer("adapted")(new.get_layer("scale")(pixels)), adapted(scale(pixels)))


@pytest.mark.skipif(not hasattr(tf.keras, "__internal__"), reason="Keras 3 has no TF functions of symbolic tensors")
def test_tensorflow_functions_are_activations():
    images = tf.keras.Input((4, 4, 3))
    x = tf.nn.silu(layers.BatchNormalization(name="bn")(images))
    x = tf.nn.leaky_relu(layers.BatchNormalization(name="bn2")(x), alpha=0.1)
    model = tf.keras.Model(images, x + images)
    new = replace_norm_act(model, EvoNormB0)
    pixels = np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype("float32")
    wanted = new.get_layer("bn2")(new.get_layer("bn")(pixels)) + pixels
    np.testing.assert_allclose(new(pixels), wanted, rtol=1e-6)


def test_channels_first_is_handed_on():
    images = tf.keras.Input((3, 4, 4))
    model = tf.keras.Model(images, layers.ReLU()(layers.BatchNormalization(axis=1, name="bn")(images)))
    assert replace_norm_act(model, EvoNormB0).get_layer("bn").axis == 1


def test_the_layer_that_does_not_fit_is_named():
    image = tf.keras.Input((8, 8, 32))
    inner = layers.ReLU()(layers.BatchNormalization(name="fits")(image))
    inner = layers.ReLU()(layers.BatchNormalization(name="wide")(layers.Conv2D(48, 1)(inner)))
    with pytest.raises(ValueError, match=r"norm_act must fit at wide, but groups must divide .* groups='auto'"):
        replace_norm_act(tf.keras.Model(image, inner), EvoNormS0)


def pair_of_models_with_one_encoder():
    start = tf.keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization(name="bn", epsilon=1e-5)(layers.Conv2D(4, 3, name="conv")(start)))
    encoder = tf.keras.Model(start, x, name="encoder")
    ends = []
    for name in "ab":
        start = tf.keras.Input((8, 8, 3))
        x = layers.GlobalAveragePooling2D()(encoder(start))
        ends.append(tf.keras.Model(start, layers.Dense(2, name=f"head_{name}")(x), name=name))
    images = tf.keras.Input((8, 8, 3))
    return tf.keras.Model(images, [end(images) for end in ends])


def test_an_encoder_shared_by_two_nested_models_stays_shared():
    model = pair_of_models_with_one_encoder()
    new = replace_norm_act(model, functools.partial(BatchNormAct, activation="relu"))
    assert new.count_params() == model.count_params()
    assert new.get_layer("a").get_layer("encoder") is new.get_layer("b").get_layer("encoder")
    pixels = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype("float32")
    for found, wanted in zip(new(pixels), model(pixels)):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert [place.normalization for place in norm_act_places(model)] == ["a/encoder/bn"]
    for name in ("a/encoder/bn", "b/encoder/bn", "bn"):
        assert norm_act_places(model, keep=name) == []


def test_a_backbone_within_time_distributed_is_replaced(tmp_path):
    start = tf.keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization(name="bn", epsilon=1e-5)(layers.Conv2D(4, 3)(start)))
    backbone = tf.keras.Model(start, layers.GlobalAveragePooling2D()(x), name="backbone")
    frames = tf.keras.Input((5, 8, 8, 3))
    model = tf.keras.Model(frames, layers.LSTM(3)(layers.TimeDistributed(backbone, name="each")(frames)))
    assert [place.normalization for place in norm_act_places(model)] == ["each/backbone/bn"]
    new = replace_norm_act(model, BatchNormAct)
    video = np.random.default_rng(1).normal(size=(2, 5, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(new(video), model(video), rtol=1e-5, atol=1e-6)
    assert isinstance(new.get_layer("each").layer.get_layer("bn"), BatchNormAct)
    new.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(tf.keras.models.load_model(tmp_path / "model.keras")(video), new(video))


@pytest.fixture
def policy():
    set_policy = tf.keras.mixed_precision.set_global_policy
    before = tf.keras.mixed_precision.global_policy()
    yield set_policy
    set_policy(before)


@pytest.mark.parametrize("built_under", ["float32", "mixed_float16", "float64"])
@pytest.mark.parametrize("layer_dtype", [None, "float32", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("replaced_under", ["float32", "mixed_float16"])
def test_new_layers_have_the_dtype_policy_of_what_they_replace(policy, built_under, layer_dtype, replaced_under):
    policy(built_under)
    images = tf.keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(images)
    x = layers.BatchNormalization(name="bn", dtype=layer_dtype)(x)
    model = tf.keras.Model(images, layers.ReLU(name="act", dtype=layer_dtype)(x))
    policy(replaced_under)
    new = replace_norm_act(model, EvoNormB0)
    assert new.get_layer("bn").compute_dtype == model.get_layer("bn").compute_dtype
    assert new.output.dtype == model.output.dtype


def test_initializers_regularizers_and_constraints_are_carried_over():
    options = dict(
        gamma_initializer=tf.keras.initializers.RandomUniform(0.5, 0.6, seed=1),
        beta_initializer=tf.keras.initializers.Constant(0.25),
        gamma_regularizer=tf.keras.regularizers.L2(0.125),
        beta_regularizer=tf.keras.regularizers.L1(0.5),
        gamma_constraint=tf.keras.constraints.NonNeg(),
        beta_constraint=tf.keras.constraints.UnitNorm(),
    )
    images = tf.keras.Input((8, 8, 4))
    model = tf.keras.Model(images, layers.ReLU()(layers.BatchNormalization(name="bn", **options)(images)))
    new = replace_norm_act(model, EvoNormB0).get_layer("bn")
    config, old = new.get_config(), model.get_layer("bn").get_config()
    assert {name: config[name] for name in options} == {name: old[name] for name in options}
    np.testing.assert_array_equal(new.gamma, model.get_layer("bn").gamma)
    np.testing.assert_array_equal(new.beta, np.full(4, 0.25))
    own = replace_norm_act(model, functools.partial(EvoNormB0, beta_initializer="ones", gamma_regularizer=None))
    assert own.get_layer("bn").gamma_regularizer is None
    np.testing.assert_array_equal(own.get_layer("bn").beta, np.ones(4))


WORDS = ["tree", "river", "tree", "stone", "river", "tree"]


def adapted(layer, data):
    layer.adapt(data)
    return layer


PREPROCESSING = {
    "text": (lambda: adapted(layers.TextVectorization(output_sequence_length=3), WORDS), [["tree stone"], ["hill"]]),
    "tf_idf": (lambda: adapted(layers.TextVectorization(output_mode="tf_idf"), WORDS), [["tree stone"], ["hill"]]),
    "strings": (lambda: adapted(layers.StringLookup(), WORDS), [["stone"], ["hill"]]),
    "integers": (lambda: adapted(layers.IntegerLookup(), [7, 7, 9, 7, 9]), [[9], [8]]),
    "bins": (lambda: adapted(layers.Discretization(num_bins=4), np.arange(64.0)), [[10.0], [50.0]]),
    "statistics": (lambda: adapted(layers.Normalization(), np.arange(64.0)[:, None]), [[10.0], [50.0]]),
    "given": (lambda: layers.StringLookup(vocabulary=["tree", "stone"]), [["stone"], ["hill"]]),
}


@pytest.mark.parametrize("kind", PREPROCESSING)
def test_adapted_preprocessing_layers_keep_what_they_learned(kind):
    make, rows = PREPROCESSING[kind]
    rows = tf.constant(rows)
    given = tf.keras.Input((1,), dtype=rows.dtype)
    layer = make()
    images = tf.keras.Input((4, 4, 3))
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(images))
    model = tf.keras.Model([given, images], [layer(given), x])
    new = replace_norm_act(model, EvoNormB0)
    copy = new.get_layer(layer.name)
    assert copy is not layer
    np.testing.assert_array_equal(copy(rows), layer(rows))
    assert len(set(map(str, np.asarray(layer(rows))))) == 2  # the rows differ, so that an empty layer fails
    if hasattr(layer, "get_vocabulary"):
        assert list(copy.get_vocabulary()) == list(layer.get_vocabulary())


class Widened(tf.keras.Model):
    """A functional model with a constructor of its own."""

    def __init__(self, width):
        images = tf.keras.Input((4, 4, 3))
        x = layers.ReLU()(layers.BatchNormalization(epsilon=1e-5)(layers.Conv2D(width, 1)(images)))
        super().__init__(images, x)
        self.width = width


@pytest.mark.parametrize("inside", [False, True])
def test_a_functional_subclass_with_its_own_constructor_is_replaced(inside, caplog):
    model = Widened(5)
    if inside:
        images = tf.keras.Input((4, 4, 3))
        model = tf.keras.Model(images, model(images))
    pixels = np.random.default_rng(1).normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(replace_norm_act(model, BatchNormAct)(pixels), model(pixels), rtol=1e-5, atol=1e-6)
    assert "Widened becomes a Functional" in caplog.text


def test_masks_reach_what_reads_the_new_layer():
    words = tf.keras.Input((7,), dtype="int32")
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(layers.Embedding(20, 8, mask_zero=True)(words)))
    model = tf.keras.Model(words, layers.LSTM(4, name="lstm")(x))
    assert replace_norm_act(model, EvoNormB0)(np.array([[1, 2, 3, 0, 0, 0, 0]])).shape == (1, 4)


def test_what_is_absorbed_is_logged(caplog):
    caplog.set_level("INFO")
    replace_norm_act(small_model(), EvoNormB0)
    name = tf.keras.activations.get("swish").__name__  # Keras 3 calls it silu
    assert f"replaced 3 normalizations with their activations (absorbed: 1 {name}, 2 ReLU) and 1 that" in caplog.text
