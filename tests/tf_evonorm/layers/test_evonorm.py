"""The layers: variables and options, moving variance, replicas, errors, weight decay, baselines against Keras and
Addons."""

import numpy as np
import pytest
import tensorflow as tf

import tf_evonorm
from experiments.benchmarks import layers
from tf_evonorm.layers.named import norm_act

B_SERIES = (tf_evonorm.EvoNormB0, tf_evonorm.EvoNormB1, tf_evonorm.EvoNormB2)
S_SERIES = (tf_evonorm.EvoNormS0, tf_evonorm.EvoNormS1, tf_evonorm.EvoNormS2)


def pictures(shape=(4, 5, 3, 8), seed=0):
    return np.random.default_rng(seed).normal(0.5, 2, shape).astype("float32")


def names(layer):
    return [weight.name.split("/")[-1].split(":")[0] for weight in layer.weights]


@pytest.mark.parametrize("layer", [*B_SERIES, *S_SERIES])
def test_the_variables(layer):
    made = layer(**({"groups": "auto"} if layer in S_SERIES else {}))
    made.build((None, None, None, 8))
    expected = ["gamma", "beta"] + ["v"] * layer.__name__.endswith("0") + ["moving_variance"] * (layer in B_SERIES)
    assert names(made) == expected
    assert {tuple(weight.shape) for weight in made.weights} == {(8,)}


@pytest.mark.parametrize("layer", [*B_SERIES, *S_SERIES])
def test_without_activation_only_the_affine_is_left(layer):
    made = layer(apply_act=False, beta_initializer="ones", gamma_initializer=tf.keras.initializers.Constant(3))
    x = pictures()
    np.testing.assert_array_equal(made(x, training=True), 3 * x + 1)
    assert names(made) == ["gamma", "beta"]


@pytest.mark.parametrize("layer", B_SERIES)
def test_the_moving_variance_moves_by_its_share_and_serves_inference(layer):
    made, x = layer(momentum=0.7), pictures()
    made(x, training=True)
    np.testing.assert_allclose(made.moving_variance, 0.7 + 0.3 * x.astype("float64").var((0, 1, 2)), rtol=1e-5)
    held = made.moving_variance.numpy()
    alone = made(x[:1])
    np.testing.assert_allclose(made(x)[:1], alone, rtol=1e-5)
    made.trainable = False
    np.testing.assert_array_equal(made(x, training=True), made(x))
    np.testing.assert_array_equal(made.moving_variance, held)


def test_without_synchronization_statistics_are_local_and_the_moving_variance_their_mean(two_replicas):
    x = pictures()
    with two_replicas.scope():
        layer = tf_evonorm.EvoNormB0(momentum=0.0)
        layer.build(x.shape)
    halves = two_replicas.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(x, 2)[context.replica_id_in_sync_group])
    )
    run = tf.function(lambda half: two_replicas.run(lambda part: layer(part, training=True), (half,)))
    parts = two_replicas.experimental_local_results(run(halves))
    for part, half in zip(parts, np.split(x, 2)):
        np.testing.assert_allclose(part, tf_evonorm.EvoNormB0()(half, training=True), atol=1e-5)
    local = [half.var((0, 1, 2)) for half in np.split(x, 2)]
    np.testing.assert_allclose(layer.moving_variance, np.mean(local, 0), rtol=1e-5)


@pytest.mark.parametrize("layer", [*B_SERIES, *S_SERIES])
def test_channels_first_is_channels_last_transposed(layer):
    options = {"groups": 4} if layer in S_SERIES else {}
    x = pictures()
    last = layer(**options)(x, training=True)
    first = layer(axis=1, **options)(np.moveaxis(x, -1, 1), training=True)
    np.testing.assert_allclose(np.moveaxis(first, 1, -1), last, atol=1e-5)


def test_regularizers_and_constraints_reach_the_variables():
    layer = tf_evonorm.EvoNormS0(groups=4, v_regularizer="l2", gamma_regularizer="l1", v_constraint="non_neg")
    layer(pictures())
    assert len(layer.losses) == 2
    assert layer.v.constraint is not None and layer.gamma.constraint is None


@pytest.mark.parametrize(
    "make, shape, message",
    [
        (lambda: tf_evonorm.EvoNormS0(), (2, 3, 3, 48), "groups must divide the channels"),
        (lambda: tf_evonorm.EvoNormB0(axis=2), (2, 3, 3, 8), "axis must be the last"),
        (lambda: tf_evonorm.EvoNormB0(), (2, 3, 3, None), "channels must be known"),
        (lambda: tf_evonorm.EvoNormB0(), (8,), "at least two axes"),
        (lambda: tf_evonorm.EvoNormB0(momentum=1.5), (2, 8), "momentum must lie"),
        (lambda: tf_evonorm.BatchNormAct(momentum=-1), (2, 8), "momentum must lie"),
        (lambda: tf_evonorm.EvoNormS1(epsilon=0), (2, 8), "epsilon must be positive"),
    ],
)
def test_wrong_arguments_are_named(make, shape, message):
    with pytest.raises(ValueError, match=message):
        make().build(shape)


def test_v_is_no_option_where_there_is_no_v():
    with pytest.raises((TypeError, ValueError), match="v_initializer"):
        tf_evonorm.EvoNormB1(v_initializer="zeros")


def test_weight_decay_leaves_normalizations_alone():
    images = tf.keras.Input((6, 6, 3))
    x = tf_evonorm.EvoNormS0(groups="auto")(tf.keras.layers.Conv2D(8, 3)(images))
    x = tf.keras.layers.BatchNormalization()(tf_evonorm.FilterResponseNormAct()(x))
    model = tf.keras.Model(images, x)
    optimizer = tf.keras.optimizers.SGD(0.1, weight_decay=0.5)
    kept = tf_evonorm.exclude_from_weight_decay(model, optimizer)
    assert {weight.name.split("/")[-1].removesuffix(":0") for weight in kept} == {"gamma", "beta", "v", "tau"}
    before = model.get_weights()
    optimizer.apply_gradients([(tf.zeros(weight.shape), weight) for weight in model.trainable_weights])
    moved = [np.abs(weight - old).max() > 0 for weight, old in zip(model.get_weights(), before)]
    kernel = [weight is model.layers[1].kernel for weight in model.weights]
    bias = [weight is model.layers[1].bias for weight in model.weights]
    assert moved == [now and not zero for now, zero in zip(kernel, bias)]


@pytest.mark.parametrize("shape, axis", [((6, 5, 3, 8), -1), ((6, 8, 5, 3), 1), ((6, 8), -1), ((2, 3, 4, 2, 8), -1)])
def test_batch_norm_is_that_of_keras(shape, axis):
    x = pictures(shape)
    keras = tf.keras.layers.BatchNormalization(axis, momentum=0.9, epsilon=1e-5)
    ours = tf_evonorm.BatchNormAct(axis=axis)
    np.testing.assert_allclose(ours(x, training=True), tf.nn.relu(keras(x, training=True)), atol=1e-5)
    count = x.size // 8
    unbiased = x.astype("float64").var(tuple(i for i in range(x.ndim) if i != axis % x.ndim)) * count / (count - 1)
    np.testing.assert_allclose(ours.moving_variance, 0.9 + 0.1 * unbiased, rtol=1e-5)
    np.testing.assert_allclose(ours.moving_mean, keras.moving_mean, atol=1e-6)
    plain = tf_evonorm.BatchNormAct(axis=axis, apply_act=False)
    np.testing.assert_allclose(plain(x), keras.__class__(axis, epsilon=1e-5)(x), atol=1e-5)


@pytest.mark.parametrize("axis", [-1, 1])
def test_group_and_layer_norm_are_those_of_keras(axis):
    x = pictures((3, 8, 6, 8))
    keras = tf.keras.layers.GroupNormalization(4, axis=axis, epsilon=1e-5)
    ours = tf_evonorm.GroupNormAct("silu", groups=4, axis=axis)
    np.testing.assert_allclose(ours(x), tf.nn.silu(keras(x)), atol=1e-5)
    keras = tf.keras.layers.GroupNormalization(1, axis=axis, epsilon=1e-5)
    np.testing.assert_allclose(tf_evonorm.LayerNormAct(axis=axis)(x), tf.nn.relu(keras(x)), atol=1e-5)


def test_swish_with_v_of_one_is_silu():
    x = pictures()
    swish, silu = (tf_evonorm.BatchNormAct(activation) for activation in ("swish_v", "silu"))
    np.testing.assert_allclose(swish(x, training=True), silu(x, training=True), atol=1e-6)


def test_filter_response_norm_is_that_of_addons():
    addons = pytest.importorskip("tensorflow_addons", reason="TensorFlow Addons ended with TensorFlow 2.15")
    x = pictures()
    theirs = addons.layers.FilterResponseNormalization()
    ours = tf_evonorm.FilterResponseNormAct(tau_initializer=tf.keras.initializers.Constant(0.3))
    np.testing.assert_allclose(ours(x), tf.maximum(theirs(x), 0.3), atol=1e-5)


@pytest.mark.parametrize("layer", ["evonorm_b0", "evonorm_s0"])
def test_the_backward_pass_keeps_the_input_and_small_numbers(layer):
    """At most 1.1 times the input, where the plain formula keeps several."""
    x = tf.constant(pictures((4, 16, 16, 32)))
    made = norm_act(layer)()
    made.build(x.shape)
    kept = layers.kept_bytes(lambda x: made(x, training=True), made.trainable_weights, x)
    assert kept <= 1.1 * 4 * x.shape.num_elements()


def test_the_speed_table_has_a_row_for_each_layer(capsys):
    pytest.importorskip("official.common", reason="the table is written by the programs, which need Model Garden")
    rows = layers.main(
        ["--layers", "evonorm_s1", "bn_relu", "--shapes", "2x4x4x32", "--modes", "graph", "--rounds", "1"]
    )
    assert [row["layer"] for row in rows] == ["evonorm_s1", "bn_relu"]
    assert rows[1]["both/bn"] == 1
    assert "| evonorm_s1 | 2x4x4x32 |" in capsys.readouterr().out
