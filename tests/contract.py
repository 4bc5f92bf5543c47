"""What every public layer promises: one list of layers and one function per promise."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

import tf_evonorm
import tf_pixpro


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer, how to make it, and the shape of one batch.

    `largest` is the size of the values that half precision must bear: a convolution adds several in that precision.
    `zero_gradient` gives the weights whose gradient is zero by mathematics: a bias in front of a batch normalization.
    """

    layer: type
    options: dict = dataclasses.field(default_factory=dict)
    input_shape: tuple = (4, 5, 3, 8)
    largest: float = 60000
    zero_gradient: Callable = lambda layer: []

    def make(self, **more):
        return self.layer(**{**self.options, **more})

    def batch(self, dtype="float32", seed=0):
        return np.random.default_rng(seed).normal(0.3, 1.5, self.input_shape).astype(dtype)

    def __str__(self):
        return "-".join([self.layer.__name__, *(f"{name}={value}" for name, value in self.options.items())])


CASES = [
    Case(tf_evonorm.EvoNormB0, {"synchronized": True}),
    Case(tf_evonorm.EvoNormB1, {"synchronized": True}),
    Case(tf_evonorm.EvoNormB2, {"synchronized": True}),
    Case(tf_evonorm.EvoNormS0, {"groups": 4}),
    Case(tf_evonorm.EvoNormS1, {"groups": "auto"}),
    Case(tf_evonorm.EvoNormS2, {"groups": 2}),
    Case(tf_evonorm.EvoNormB0, {"apply_act": False}),
    Case(tf_evonorm.BatchNormAct, {"synchronized": True}),
    Case(tf_evonorm.BatchNormAct, {"activation": "swish_v", "synchronized": True}),
    Case(tf_evonorm.GroupNormAct, {"activation": "silu", "groups": 4}),
    Case(tf_evonorm.LayerNormAct),
    Case(tf_evonorm.PixelNormAct),
    Case(tf_evonorm.FilterResponseNormAct),
    Case(
        tf_evonorm.GraphLayer,
        {"graph": "std_batch(0) mul(3,0) std_group(0) add(5,6) max(4,7) div(0,8) add(9,2)", "synchronized": True},
    ),
    Case(tf_pixpro.PixelPropagation, {"value_layers": 2}, zero_gradient=lambda layer: [layer.value[0].bias]),
    Case(
        tf_pixpro.BYOL,
        {"hidden": 6, "features": 5},
        largest=1000,
        zero_gradient=lambda layer: [
            layer.projection.expand.bias,
            layer.projection.reduce.bias,
            layer.prediction.expand.bias,
        ],
    ),
    Case(
        tf_pixpro.SimCLR,
        {"hidden": 6, "features": 5},
        largest=1000,
        zero_gradient=lambda layer: [layer.projection.expand.bias],
    ),
    Case(tf_pixpro.PixelPropagation, {"value_layers": 0, "block": 4}),
    Case(
        tf_pixpro.ProjectionHead,
        {"hidden": 6, "features": 5},
        largest=1000,
        zero_gradient=lambda layer: [layer.expand.bias],
    ),
]


def modes_agree(case):
    """Eager = tf.function = XLA, outputs and gradients, in training mode."""
    layer, x = case.make(), tf.constant(case.batch())
    layer.build(x.shape)

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, *tape.gradient(y, [x, *layer.trainable_weights], _weights(y))

    expected = step(x)
    for jit in (False, True):
        for got, want in zip(tf.function(step, jit_compile=jit)(x), expected):
            _close(got, want, 1e-4)


def config_makes_the_same(case):
    """The config makes a layer of the same config, and the same numbers with the same weights."""
    layer, x = case.make(), case.batch()
    other = case.layer.from_config(layer.get_config())
    assert other.get_config() == layer.get_config()
    want = layer(x)
    other.build(x.shape)
    other.set_weights(layer.get_weights())
    np.testing.assert_array_equal(other(x), want)


def saved_is_the_same(case, folder):
    """`.keras` files and SavedModels give the same numbers back, for sizes that were unknown when saved."""
    model = _model(case, unknown=True)
    model(case.batch(), training=True)
    x = case.batch(seed=1)[:3, :4]
    want = model(x).numpy()
    model.save(folder / "model.keras")
    np.testing.assert_array_equal(tf.keras.models.load_model(folder / "model.keras")(x), want)
    tf.saved_model.save(model, str(folder / "saved"))
    serve = tf.saved_model.load(str(folder / "saved")).signatures["serving_default"]
    _close(next(iter(serve(tf.constant(x)).values())), want, 1e-6)


def checkpoint_holds_every_weight(case, folder):
    """`tf.train.Checkpoint` brings every weight, statistics too, into another layer."""
    layer, other = case.make(), case.make()
    for one in (layer, other):
        one.build(case.input_shape)
    generator = np.random.default_rng(4)
    layer.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    path = tf.train.Checkpoint(layer=layer).write(str(folder / "layer"))
    tf.train.Checkpoint(layer=other).read(path).assert_consumed()
    for got, want in zip(other.get_weights(), layer.get_weights()):
        np.testing.assert_array_equal(got, want)


def half_precision_is_finite(case, dtype):
    """The largest values stay finite, forward and backward, under a half precision policy; variables are float32."""
    layer = case.make(dtype=f"mixed_{dtype}")
    signs = np.where(case.batch() > 0.3, case.largest, -case.largest)
    x = tf.constant(signs, dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    assert y.dtype == dtype
    assert {tf.as_dtype(w.dtype) for w in layer.weights} <= {tf.float32}
    dx = tape.gradient(y, [x, *layer.trainable_weights], tf.ones_like(y) * 1e-3)
    for value in (y, layer(x), *dx):
        assert np.isfinite(np.asarray(value, "float32")).all()


def unknown_sizes_agree(case):
    """A model that knows only the channels gives what the layer gives, for two batch and image sizes."""
    model = _model(case, unknown=True)
    for x in (case.batch(), case.batch(seed=2)[:2, :3]):
        _close(model(x), model.layers[1](x), 1e-6)
        assert model.predict(x, verbose=0).shape == model(x).shape


def one_step_changes_every_weight(case):
    """`fit` moves every trainable weight."""
    model = _model(case)
    before = [w.numpy() for w in model.trainable_weights]
    x = case.batch()
    model.compile(tf.keras.optimizers.SGD(0.1), "mse")
    model.fit(x, np.random.default_rng(3).normal(size=model(x).shape), batch_size=len(x), verbose=0)
    zero = [id(weight) for weight in case.zero_gradient(model.layers[1])]
    for weight, old in zip(model.trainable_weights, before):
        assert id(weight) in zero or np.abs(weight.numpy() - old).max() > 0, weight.name


def replicas_agree(case, strategy):
    """Two replicas with half of the batch each compute what one computes with all of it, gradients and moving values
    too."""
    x = case.batch()
    alone = case.make()
    alone.build(x.shape)
    with strategy.scope():
        layer = case.make()
        layer.build(x.shape)
    layer.set_weights(alone.get_weights())
    cotangent = _weights(alone(x)).numpy()

    def halves(whole):
        whole = np.split(whole, 2)
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(whole[context.replica_id_in_sync_group])
        )

    def step(layer, x, cotangent):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, *tape.gradient(y, [x, *layer.trainable_weights], cotangent)

    want = step(alone, tf.constant(x), cotangent)
    run = tf.function(lambda *args: strategy.run(lambda *a: step(layer, *a), args))
    parts = [strategy.experimental_local_results(value) for value in run(halves(x), halves(cotangent))]
    for part, whole in zip(parts[:2], want[:2]):
        _close(np.concatenate(part), whole, 1e-4)
    for part, whole in zip(parts[2:], want[2:]):
        _close(np.sum(part, 0), whole, 1e-4)
    for weight, whole in zip(layer.non_trainable_weights, alone.non_trainable_weights):
        _close(weight, whole, 1e-5)


def _model(case, unknown=False):
    between = [None] * (len(case.input_shape) - 2) if unknown else case.input_shape[1:-1]
    images = tf.keras.Input((*between, case.input_shape[-1]))
    return tf.keras.Model(images, case.make()(images))


def _weights(y):
    """Fixed weights of a sum over y; they differ from place to place."""
    return tf.reshape(tf.sin(tf.range(tf.size(y), dtype=y.dtype)), tf.shape(y))


def _close(got, want, tolerance):
    want = np.asarray(want)
    np.testing.assert_allclose(np.asarray(got), want, rtol=0, atol=tolerance * max(np.abs(want).max(), 0.1))
