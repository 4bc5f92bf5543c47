"""Every normalization is found with its activation, or refused by name with the way out."""

import pytest
import tensorflow as tf

from tf_evonorm import EvoNormB0, norm_act_places, replace_norm_act
from tf_evonorm.keras_generation import KERAS_2

layers = tf.keras.layers


def test_all_that_is_unclear_is_named_at_once():
    x = images = tf.keras.Input((8, 8, 3))
    for name in "abc":
        x = layers.BatchNormalization(name=name)(x)
        x = layers.Activation("relu", name=f"{name}1")(x) if name == "b" else layers.Lambda(lambda t: t * t)(x)
    model = tf.keras.Model(images, x)
    with pytest.raises(
        ValueError, match=r"Received a, read by .* 1 others are alike: keep=\('a', 'c'\) keeps them all"
    ):
        norm_act_places(model)
    assert [place.normalization for place in norm_act_places(model, keep=("a", "c"))] == ["b"]


class FrozenBatchNorm(layers.BatchNormalization):
    """As in detectors: always the moving statistics."""

    def call(self, inputs, training=None):
        return super().call(inputs, training=False)


class OwnBatchNorm(layers.Layer):
    """A user's normalization that does not say where its channels are."""

    def call(self, inputs):
        return inputs


def activated(normalization, shape=(4, 4, 3)):
    images = tf.keras.Input(shape)
    return tf.keras.Model(images, layers.ReLU(name="act")(normalization(images)))


@pytest.mark.parametrize("kind", ["own subclass", "synchronized", "group"])
def test_subclasses_of_normalizations_are_replaced(kind):
    makers = {
        "own subclass": FrozenBatchNorm,
        "synchronized": lambda name: layers.BatchNormalization(synchronized=True, name=name),
        "group": lambda name: layers.GroupNormalization(3, name=name),
    }
    new = replace_norm_act(activated(makers[kind](name="bn")), EvoNormB0)
    assert type(new.get_layer("bn")) is EvoNormB0
    assert new.get_layer("bn").synchronized == (kind == "synchronized")


@pytest.mark.skipif(not KERAS_2, reason="Keras 3 has no SyncBatchNormalization and no options of Keras 1's layer")
def test_sync_batch_normalization_of_keras_2_is_replaced():
    sync = layers.experimental.SyncBatchNormalization(name="bn")
    assert replace_norm_act(activated(sync), EvoNormB0).get_layer("bn").synchronized


@pytest.mark.skipif(not KERAS_2, reason="Keras 3 has no SyncBatchNormalization and no options of Keras 1's layer")
@pytest.mark.parametrize("option", [dict(renorm=True), dict(virtual_batch_size=2)])
def test_options_without_a_counterpart_are_refused(option):
    images = tf.keras.Input((4, 4, 3), 4)
    norm = tf.compat.v1.keras.layers.BatchNormalization(name="bn", **option)
    model = tf.keras.Model(images, layers.ReLU()(norm(images)))
    with pytest.raises(ValueError, match=rf"plain statistics.* Received bn with {next(iter(option))}="):
        norm_act_places(model)


def test_a_normalization_that_does_not_say_its_axis_is_refused():
    with pytest.raises(ValueError, match=r"Received bn \(OwnBatchNorm\) with axis=None"):
        norm_act_places(activated(OwnBatchNorm(name="bn")))


@pytest.mark.parametrize("make", [layers.BatchNormalization, lambda **o: layers.GroupNormalization(1, **o)])
@pytest.mark.parametrize("axis, shape, wanted", [(-1, (4, 5, 3), -1), (3, (4, 5, 3), -1), (1, (3, 4, 5), 1)])
def test_axis_from_either_end(make, axis, shape, wanted):
    for given in {axis, axis - 4 if axis > 0 else axis}:
        new = replace_norm_act(activated(make(axis=given, name="bn"), shape), EvoNormB0)
        assert new.get_layer("bn").axis == wanted


def test_axis_of_vectors_is_the_last():
    new = replace_norm_act(activated(layers.BatchNormalization(axis=1, name="bn"), (5,)), EvoNormB0)
    assert new.get_layer("bn").axis == -1


@pytest.mark.parametrize("axis", [2, -2, [1, 3]])
def test_axis_in_the_middle_is_refused(axis):
    model = activated(layers.BatchNormalization(axis=axis, name="bn"), (4, 5, 3)) if KERAS_2 or axis != [1, 3] else None
    if model is None:
        pytest.skip("Keras 3 takes no list of axes")
    with pytest.raises(ValueError, match=r"channels last or right after the batch.* Received bn .* with axis="):
        norm_act_places(model)


def nested():
    start = [tf.keras.Input((4, 4, 3)), layers.BatchNormalization(name="norm"), layers.ReLU()]
    images = tf.keras.Input((4, 4, 3))
    x = layers.ReLU()(layers.BatchNormalization(name="bn1")(images))
    x = layers.ReLU()(layers.BatchNormalization(name="b")(x))
    return tf.keras.Model(images, tf.keras.Sequential(start, name="inner")(x))


@pytest.mark.parametrize(
    "keep, left",
    [
        (["inner/norm"], ["bn1", "b"]),
        ("norm", ["bn1", "b"]),
        ("bn1", ["b", "inner/norm"]),
        (("bn1", "b"), ["inner/norm"]),
        ({"b"}, ["bn1", "inner/norm"]),
    ],
)
def test_keep_takes_nested_names_and_one_string(keep, left):
    assert [place.normalization for place in norm_act_places(nested(), keep)] == left
    new = replace_norm_act(nested(), EvoNormB0, keep)
    kinds = {
        "bn1": new.get_layer("bn1"),
        "b": new.get_layer("b"),
        "inner/norm": new.get_layer("inner").get_layer("norm"),
    }
    assert [name for name, layer in kinds.items() if isinstance(layer, EvoNormB0)] == left


@pytest.mark.parametrize("keep", ["bn_1", ["inner/nrm"], ["bn1", "inner"], ["re_lu"], [3]])
def test_keep_refuses_what_is_no_normalization(keep):
    wrong = keep if isinstance(keep, str) else keep[-1]
    with pytest.raises(ValueError, match=rf"names of normalizations in the model. Received {wrong!r}"):
        norm_act_places(nested(), keep)
    with pytest.raises(ValueError, match=r"Did you mean 'bn1'"):
        replace_norm_act(nested(), EvoNormB0, keep="bn_1")


def test_names_of_nested_models_are_named_so_that_keep_takes_them():
    start = tf.keras.Input((4, 4, 3))
    inner = tf.keras.Model(start, layers.Softmax()(layers.BatchNormalization(name="bn")(start)), name="inner")
    images = tf.keras.Input((4, 4, 3))
    model = tf.keras.Model(images, inner(layers.ReLU()(layers.BatchNormalization(name="first")(images))))
    with pytest.raises(ValueError, match=r"Received softmax\w* after inner/bn.* keep=\('inner/bn',\)"):
        norm_act_places(model)
    assert [place.normalization for place in norm_act_places(model, "inner/bn")] == ["first"]


def test_a_normalization_shared_with_and_without_activation_is_refused():
    shared = layers.BatchNormalization(name="bn")
    start = tf.keras.Input((4, 4, 3))
    inner = tf.keras.Model(start, layers.Conv2D(3, 1)(shared(start)), name="inner")
    images = tf.keras.Input((4, 4, 3))
    model = tf.keras.Model(images, inner(layers.ReLU()(shared(images))))
    with pytest.raises(ValueError, match=r"an activation everywhere or nowhere. Received \S*bn, also used as \S*bn"):
        norm_act_places(model)


def norm(x, name="bn"):
    return layers.BatchNormalization(name=name)(x)


def two_readers(x):
    x = norm(x)
    return layers.Add()([layers.ReLU(name="act")(x), x])


def unknown_activation(x):
    return layers.Activation("sigmoid", name="gate")(norm(x))


def function_of_one_tensor(x):
    return norm(x) * 2.0


def late_activation(x):
    return layers.ReLU(name="act")(layers.Dropout(0.1, name="drop")(norm(x)))


def activation_in_a_nested_model(x):
    return tf.keras.Sequential([layers.ReLU(name="act")], name="nested")(norm(x))


def activation_behind_a_nested_model(x):
    inner = tf.keras.Sequential([tf.keras.Input((4, 4, 3)), layers.BatchNormalization(name="bn")], name="inner")
    outer = tf.keras.Sequential([tf.keras.Input((4, 4, 3)), inner], name="outer")
    return layers.ReLU(name="act")(layers.MaxPooling2D(name="pool")(outer(x)))


def norm_inside_a_layer(x):
    return layers.ReLU()(layers.TimeDistributed(layers.BatchNormalization(name="bn"), name="each")(x))


def only_alone(x):
    return layers.Conv2D(3, 1)(norm(x))


@pytest.mark.parametrize(
    "build, message",
    [
        (two_readers, r"feed its activation alone.* Received bn, read by act and by add"),
        (unknown_activation, r"must be a known activation: relu.* Received gate after bn"),
        (function_of_one_tensor, r"followed by Keras layers. Received bn, read by .*multiply"),
        (late_activation, r"follow its normalization at once. Received bn, then drop, then act"),
        (
            activation_in_a_nested_model,
            r"lie in one model. Received bn, read by the model nested, which starts with act",
        ),
        (
            activation_behind_a_nested_model,
            r"lie in one model. Received outer/inner/bn, whose model is followed by pool, then by act\. Put them",
        ),
        (norm_inside_a_layer, r"layer of the model itself. Received each \(TimeDistributed\) with bn inside"),
        (only_alone, r"followed by an activation. Received alone_model with 1 normalizations, none of them"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(build, message):
    tf.keras.backend.clear_session()
    images = tf.keras.Input((4, 4, 3))
    name = "alone_model" if build is only_alone else None
    with pytest.raises(ValueError, match=message):
        replace_norm_act(tf.keras.Model(images, build(images), name=name), EvoNormB0)


def test_a_sum_behind_a_nested_model_is_no_activation_of_its_normalization():
    images = tf.keras.Input((4, 4, 3))
    inner = tf.keras.Sequential([tf.keras.Input((4, 4, 3)), layers.BatchNormalization(name="last")])
    x = layers.ReLU()(layers.Add()([inner(layers.ReLU()(layers.BatchNormalization()(images))), images]))
    assert [place.apply_act for place in norm_act_places(tf.keras.Model(images, x))] == [True, False]


@pytest.mark.parametrize("nested", [False, True])
def test_a_sequential_that_does_not_know_its_input_is_refused_by_name(nested):
    model = tf.keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()], name="mine")
    with pytest.raises(ValueError, match=r"know its inputs\. Received (mine|outer), a Sequential without one"):
        norm_act_places(tf.keras.Sequential([model], name="outer") if nested else model)


def test_subclassed_model_is_refused_by_name():
    class Own(tf.keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match=r"functional or Sequential.* Received mine \(Own\)"):
        replace_norm_act(Own(name="mine"), EvoNormB0)


class Widened(tf.keras.Model):
    """A functional model with a constructor of its own and a training step of its own."""

    def __init__(self, width):
        images = tf.keras.Input((4, 4, 3))
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(width, 1)(images)))
        super().__init__(images, x, name="mine")

    def train_step(self, data):
        return {}


def test_a_functional_subclass_that_does_more_is_refused_by_name():
    with pytest.raises(ValueError, match=r"Received mine \(Widened\), which defines train_step"):
        norm_act_places(Widened(4))
    model = Widened(4)
    assert len(norm_act_places(tf.keras.Model(model.inputs, model.outputs))) == 1
