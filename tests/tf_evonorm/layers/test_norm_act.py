"""What all layers share: signatures, channels, empty batches, masks, training as a tensor, values beyond half
precision."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

import tf_evonorm
from tf_evonorm.layers import ConditionalNormAct, SpectralNormalization
from tf_evonorm.layers.norm_act import NormAct
from tf_evonorm.mistakes import Mistake

GRAPH = "std_batch(0) div(0,4) mean_batch(0) add(5,6)"
LAYERS = {
    "b0": tf_evonorm.EvoNormB0,
    "b1": tf_evonorm.EvoNormB1,
    "b2": tf_evonorm.EvoNormB2,
    "s0": lambda **options: tf_evonorm.EvoNormS0(groups=4, **options),
    "s1": lambda **options: tf_evonorm.EvoNormS1(groups=4, **options),
    "s2": lambda **options: tf_evonorm.EvoNormS2(groups=4, **options),
    "bn": tf_evonorm.BatchNormAct,
    "gn": lambda **options: tf_evonorm.GroupNormAct(groups=4, **options),
    "ln": tf_evonorm.LayerNormAct,
    "pixel": tf_evonorm.PixelNormAct,
    "frn": tf_evonorm.FilterResponseNormAct,
    "graph": lambda **options: tf_evonorm.GraphLayer(GRAPH, **options),
}
BATCH = ("b0", "b1", "b2", "bn", "graph")
X = np.random.default_rng(0).normal(0.3, 1.5, (4, 5, 3, 8)).astype("float32")


def moving(layer):
    return [weight.numpy() for weight in layer.non_trainable_weights]


@pytest.mark.parametrize(
    "layer",
    [tf_evonorm.EvoNormB0, tf_evonorm.EvoNormB1, tf_evonorm.EvoNormS0, tf_evonorm.EvoNormS2]
    + [tf_evonorm.BatchNormAct, tf_evonorm.GroupNormAct, tf_evonorm.LayerNormAct, tf_evonorm.PixelNormAct]
    + [tf_evonorm.FilterResponseNormAct, tf_evonorm.GraphLayer, ConditionalNormAct, SpectralNormalization],
)
def test_signatures_name_every_argument(layer):
    parameters = inspect.signature(layer).parameters
    assert not [p for p in parameters.values() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    assert {"name", "dtype", "trainable"} <= set(parameters)
    if issubclass(layer, NormAct):
        options = {"graph": GRAPH} if layer is tf_evonorm.GraphLayer else {}
        assert set(layer(**options).get_config()) <= set(parameters)


@pytest.mark.parametrize(
    "argument", ["gamma_initializer", "beta_regularizer", "v_constraint", "moving_variance_initializer"]
)
def test_what_keras_does_not_know_is_a_mistake(argument):
    with pytest.raises(Mistake, match=f"{argument} must be a name, .* Received 'zeroz'"):
        tf_evonorm.EvoNormB0(**{argument: "zeroz"})


def test_the_shape_of_a_first_layer_is_an_argument():
    config = {**tf_evonorm.EvoNormB0(name="first").get_config(), "batch_input_shape": (None, 4, 4, 8)}
    for layer in (tf_evonorm.EvoNormB0(input_shape=(4, 4, 8)), tf_evonorm.EvoNormB0.from_config(config)):
        assert tf.keras.Sequential([layer])(np.ones([2, 4, 4, 8], "float32")).shape == (2, 4, 4, 8)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_building_a_model_traces_no_formula(name, dtype, monkeypatch):
    layer = LAYERS[name](dtype=dtype)
    image = tf.keras.Input((None, None, 8))
    with monkeypatch.context() as context:
        context.setattr(type(layer), "normalized", None)
        model = tf.keras.Model(image, layer(image))
    assert model.output.dtype == layer.compute_dtype and tuple(model.output.shape) == (None, None, None, 8)
    np.testing.assert_array_equal(model(X), layer(X))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("channels", [1, 16])
def test_other_channels_than_those_of_build_are_refused(name, channels):
    layer = LAYERS[name]()
    layer.build((None, None, None, 8))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 8"):
        layer(np.ones([2, 4, 4, channels], "float32"))


@pytest.mark.parametrize("name", LAYERS)
def test_channels_unknown_at_call_time_are_those_of_build(name):
    layer = LAYERS[name]()
    want = layer(X)
    run = tf.function(layer, input_signature=[tf.TensorSpec([None] * 4)])
    np.testing.assert_allclose(run(X), want, atol=1e-5)


def test_numpy_numbers_are_arguments_and_configs_hold_python_numbers():
    layer = tf_evonorm.EvoNormS0(groups=np.int64(4), axis=np.int32(-1), epsilon=np.float64(1e-3))
    layer(X)
    config = layer.get_config()
    assert [type(config[name]) for name in ("groups", "axis", "epsilon")] == [int, int, float]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_without_samples_moves_nothing(name, training):
    layer = LAYERS[name]()
    layer(X, training=True)
    before = moving(layer)
    with tf.GradientTape() as tape:
        y = layer(X[:0], training=training)
        loss = tf.reduce_sum(y)
    gradients = tape.gradient(loss, layer.trainable_variables, unconnected_gradients="zero")
    assert y.shape == (0, 5, 3, 8)
    for value, old in zip(moving(layer), before):
        np.testing.assert_array_equal(value, old)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros(8))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (1, 8), (1, 5, 3, 8)])
def test_one_sample_is_finite(name, shape):
    layer, x = LAYERS[name](), tf.constant(X.ravel()[: np.prod(shape)].reshape(shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    for value in (y, tape.gradient(y, x), *moving(layer)):
        assert np.isfinite(value).all()


@pytest.mark.parametrize("name", BATCH)
@pytest.mark.parametrize("synchronized", [True, False])
def test_an_empty_replica_moves_nothing_and_breaks_nothing(name, synchronized, two_replicas):
    with two_replicas.scope():
        layer = LAYERS[name](synchronized=synchronized, momentum=0.0)
        layer.build(X.shape)
    alone = LAYERS[name](momentum=0.0)
    alone(X, training=True)
    first = moving(layer)
    parts = two_replicas.experimental_distribute_values_from_function(
        lambda context: tf.constant(X if context.replica_id_in_sync_group == 0 else X[:0])
    )

    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(layer(x, training=True)))
        return tape.gradient(loss, layer.trainable_variables)

    gradients = tf.function(lambda x: two_replicas.run(step, (x,)))(parts)
    for gradient in gradients:
        for value in two_replicas.experimental_local_results(gradient):
            assert np.isfinite(value).all()
    for value, want, start in zip(moving(layer), moving(alone), first):
        # Read is the mean over replicas; one that is empty keeps its statistic unless it shares that of all.
        np.testing.assert_allclose(value, want if synchronized else (want + start) / 2, rtol=1e-5)


def sequence():
    """[4, 7, 8] with the last positions of each sample masked."""
    x = np.random.default_rng(1).normal(0.5, 2, (4, 7, 8)).astype("float32")
    return x, np.arange(7) < np.array([[7], [5], [3], [1]])


@pytest.mark.parametrize("name", LAYERS)
def test_masks_are_handed_on(name):
    ids = np.array([[1, 2, 3, 0, 0, 0, 0]])
    words = tf.keras.Input((7,), dtype="int32")
    embedding, layer, lstm = tf.keras.layers.Embedding(20, 8, mask_zero=True), LAYERS[name](), tf.keras.layers.LSTM(4)
    model = tf.keras.Model(words, lstm(layer(embedding(words))))
    hidden = tf.constant(np.array(layer(tf.constant(np.array(embedding(ids))))))
    np.testing.assert_allclose(model(ids), lstm(hidden, mask=tf.constant(ids != 0)), atol=1e-6)


@pytest.mark.parametrize("name", BATCH)
def test_batch_statistics_leave_masked_positions_out(name):
    x, mask = sequence()
    layer, other, short = (LAYERS[name](momentum=0.0) for _ in range(3))
    layer(x, mask=tf.constant(mask), training=True)
    other(np.where(mask[..., None], x, 1e3), mask=tf.constant(mask), training=True)
    short(x[mask], training=True)  # [B * T, C]: the positions that count, as a batch of their own
    for value, changed, want in zip(moving(layer), moving(other), moving(short)):
        np.testing.assert_allclose(value, changed, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BATCH)
def test_a_mask_that_hides_nothing_changes_nothing(name):
    x, mask = sequence()
    results = []
    for given in (None, tf.constant(np.ones_like(mask))):
        layer, point = LAYERS[name](), tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(point)
            y = layer(point, mask=given, training=True)
        results.append([y, tape.gradient(y, point, tf.sin(point)), *moving(layer)])
    for got, want in zip(*results):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_conditional_layer_hands_on_the_mask_of_its_first_input():
    layer = ConditionalNormAct(tf_evonorm.EvoNormB0(affine=False))
    x, mask = sequence()
    assert layer([x, np.ones([4, 6], "float32")]).shape == x.shape
    assert layer.compute_mask([x, None], [mask, None]) is mask


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_training_may_be_a_tensor(name, training):
    layer, other = LAYERS[name](), LAYERS[name]()
    layer.build(X.shape)
    run = tf.function(lambda x, training: layer.call(x, training=training))
    got = run(tf.constant(X), tf.constant(training))
    np.testing.assert_allclose(got, other(X, training=training), atol=1e-5)
    for value, want in zip(moving(layer), moving(other)):
        np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(other.call(tf.constant(X), training=tf.constant(False)), other(X), atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_inputs_beyond_half_precision_are_finite(name):
    layer = LAYERS[name](dtype="mixed_float16")
    for training in (True, False, True):
        x = tf.constant(1e5 * X)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
        assert y.dtype == tf.float16
        if training or name not in BATCH:
            assert np.isfinite(y).all() and np.isfinite(tape.gradient(y, x, tf.ones_like(y))).all()


@pytest.mark.parametrize("apply_act", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_what_fits_half_precision_is_the_value_of_float32(name, apply_act):
    """Inputs of 1e5, in training and in inference, fresh and with statistics of such inputs."""
    half, full = (LAYERS[name](dtype=dtype, apply_act=apply_act) for dtype in ("mixed_float16", "float32"))
    x = tf.constant(1e5 * X)
    for layer in (half, full):
        layer.build(x.shape)
    for fresh in (True, False):
        for training in (True, False):
            want = full(x, training=training).numpy()
            got = half(x, training=training).numpy()
            fits = np.abs(want) < 65504
            assert got.dtype == np.float16 and (fits.any() or name == "graph")
            np.testing.assert_allclose(got[fits], want[fits], rtol=2e-3, atol=1e-2)
        if not fresh:
            continue
        for layer in (half, full):
            for weight in layer.non_trainable_weights:
                weight.assign(tf.fill(weight.shape, 1e5 if "mean" in weight.name or "std" in weight.name else 1e10))
    assert fits.all() or not apply_act or name == "graph"  # which adds the mean


@pytest.mark.parametrize("wrapped", [False, True])
def test_weight_decay_is_excluded_inside_a_loss_scale(wrapped):
    model = tf.keras.Sequential([tf.keras.Input((4, 4, 8)), tf_evonorm.EvoNormS0(groups=4)])
    optimizer = tf.keras.optimizers.SGD(0.1, weight_decay=0.5)
    if wrapped:
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
    variables = tf_evonorm.exclude_from_weight_decay(model, optimizer)
    before = model.get_weights()
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in variables])
    for weight, old in zip(model.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


def test_an_optimizer_that_cannot_leave_variables_out_is_refused():
    model = tf.keras.Sequential([tf.keras.Input((4, 4, 8)), tf_evonorm.EvoNormB0()])
    with pytest.raises(ValueError, match=r"exclude_from_weight_decay\. Received object"):
        tf_evonorm.exclude_from_weight_decay(model, object())
