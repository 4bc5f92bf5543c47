"""Instance terms: the authors' numbers, SimCLR's formula, baselines without pixels, one replica against two."""

import numpy as np
import pytest
import tensorflow as tf
from authors_state import load
from reference import channels_last, kernel, notes, relative_error

import tf_evonorm
import tf_pixpro
from tf_pixpro import BYOL, LARS, PixelPropagation, PixPro, ProjectionHead, SimCLR
from tf_pixpro.pretext.losses import instance_contrast

CASE = "pixpro/c_pixpro_ins_t2_224"


def authors_model(meta) -> PixPro:
    args = meta["args"]
    instance = BYOL(meta["proj_inner"], args["feature_dim"])
    return PixPro(
        tf_evonorm.backbones.resnet(50, blocks=meta["blocks"], width=1 / meta["width_divisor"]),
        ProjectionHead(meta["proj_inner"], args["feature_dim"]),
        PixelPropagation(args["pixpro_p"], args["pixpro_transform_layer"], args["pixpro_clamp_value"]),
        distance=args["pixpro_pos_ratio"],
        momentum=args["pixpro_momentum"],
        steps=meta["K"],
        instance=instance,
        instance_weight=args["pixpro_ins_loss_weight"],
    )


def test_the_combined_step_is_the_authors(golden, float64):
    given, expected = golden(f"{CASE}_in.npz"), golden(f"{CASE}_out.npz")
    meta = notes(given)
    model = authors_model(meta)
    named = load(model, given)
    assert len(named) == sum("num_batches" not in name for name in given if name.startswith("state/"))
    model.momentum_step.assign(meta["k_before"])
    views = {f"view{v}": (channels_last(given[f"im{v}_u8"]).astype(np.float64) - 127.5) / 64 for v in (1, 2)}
    batch = {**views, "box1": given["coord1"], "box2": given["coord2"]}
    with tf.GradientTape() as tape:
        logs = model.pretext_loss(batch)
    pixel = expected["loss_pix_12"] + expected["loss_pix_21"]
    np.testing.assert_allclose(logs["instance_loss"], expected["loss_instance"], rtol=1e-9)
    np.testing.assert_allclose([logs["pixel_loss"], logs["loss"]], [pixel, expected["loss"]], rtol=3e-6)
    for name in (n.removeprefix("after/") for n in expected if n.startswith("after/") and "num_batches" not in n):
        assert relative_error(named[name], kernel(expected[f"after/{name}"])) < 1e-9, name
    names = [n.removeprefix("gradnorm/") for n in expected if n.startswith("gradnorm/")]
    assert {"predictor.linear2.bias", "projector_instance.linear1.weight"} <= set(names)
    for name, slope in zip(names, tape.gradient(logs["loss"], [named[n] for n in names])):
        if expected[f"gradnorm/{name}"] < 1e-7:  # a bias before a normalization
            assert np.abs(slope).max() < 1e-7, name
            continue
        np.testing.assert_allclose(tf.norm(slope), expected[f"gradnorm/{name}"], rtol=1e-6, err_msg=name)
        if f"grad/{name}" in expected:
            assert relative_error(slope, kernel(expected[f"grad/{name}"])) < 1e-6, name


def encoder():
    images = tf.keras.Input((None, None, 3))
    x = tf.keras.layers.Conv2D(8, 4, strides=4)(images)
    return tf.keras.Model(images, {"4": x, "5": tf.keras.layers.Conv2D(6, 2, strides=2)(x)})


def batch(count=4):
    random = np.random.default_rng(1)
    views = {f"view{v}": random.normal(size=(count, 40, 24, 3)).astype("f") for v in (1, 2)}
    return {**views, **{f"box{v}": np.tile([[0.1 * v, 0, 0.9, 1]], (count, 1)).astype("f") for v in (1, 2)}}


def test_contrast_is_simclrs_formula():
    """NT-Xent over 2N views, as its paper writes it, in double precision NumPy."""
    random = np.random.default_rng(0)
    views = random.normal(size=(2, 5, 7))
    views /= np.linalg.norm(views, axis=-1, keepdims=True)
    everything = np.concatenate(views)
    similarity = np.exp(everything @ everything.T / 0.2)
    np.fill_diagonal(similarity, 0)
    expected = [-np.log(similarity[i, i + 5] / similarity[i].sum()) for i in range(5)]
    one, two = (tf.constant(view) for view in views)
    np.testing.assert_allclose(instance_contrast(one, two, one, 0.2), expected, rtol=1e-12)


@pytest.mark.parametrize("term", [BYOL, SimCLR])
def test_alone_it_is_a_baseline_that_learns_and_is_saved(term, tmp_path):
    tf.keras.utils.set_random_seed(2)
    model = PixPro(encoder(), instance=term(hidden=8, features=8), pixel_weight=0.0, momentum=0.9)
    assert model.projection is model.propagation is model.momentum_projection is None
    model.compile(LARS(1.0))
    data = tf.data.Dataset.from_tensors(batch())
    before = model.evaluate(data, verbose=0, return_dict=True)
    assert before["loss"] == before["instance_loss"] and "pixel_loss" not in before and before["projection_std"] > 0
    start = [w.numpy() for w in model.trainable_weights]
    model.fit(data.repeat(15), verbose=0)
    assert np.mean([(old != new.numpy()).any() for old, new in zip(start, model.trainable_weights)]) > 0.8
    after = model.evaluate(data, verbose=0, return_dict=True)
    assert after["loss"] < before["loss"]
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    assert again.evaluate(data, verbose=0, return_dict=True) == pytest.approx(after, rel=1e-6)


@pytest.mark.parametrize("pixels", [PixPro, tf_pixpro.PixContrast])
def test_terms_add_by_weight_and_read_their_own_level(pixels):
    instance = SimCLR(hidden=8, features=8, level="4")
    model = pixels(encoder(), ProjectionHead(8, 8), instance=instance, pixel_weight=0.5, instance_weight=3.0)
    assert instance.projection.expand.kernel.shape[-2] == 8 and model.projection.expand.kernel.shape[-2] == 6
    logs = model.pretext_loss(batch(), training=False)
    expected = 0.5 * logs["pixel_loss"] + 3 * logs["instance_loss"]
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("pixels", "term"),
    [
        (tf_pixpro.PixContrast, SimCLR),
        (None, BYOL),
        pytest.param(PixPro, BYOL, marks=pytest.mark.slow),
        pytest.param(PixPro, SimCLR, marks=pytest.mark.slow),
        pytest.param(None, SimCLR, marks=pytest.mark.slow),
    ],
)
def test_two_replicas_are_one(pixels, term, two_replicas):
    weights = None
    found = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            kind = pixels or PixPro
            model = kind(
                encoder(),
                *([ProjectionHead(8, 8)] if pixels else []),
                instance=term(hidden=8, features=8),
                pixel_weight=float(pixels is not None),
            )
        if weights is not None:
            model.set_weights(weights)
        weights = model.get_weights()
        replicas = strategy.num_replicas_in_sync
        parts = [{k: np.split(v, replicas)[r] for k, v in batch(6).items()} for r in range(replicas)]

        def step(part, model=model, replicas=replicas):
            with tf.GradientTape() as tape:
                loss = model.pretext_loss(part)["loss"] / replicas
            return loss, tape.gradient(loss, model.trainable_weights)

        given = strategy.experimental_distribute_values_from_function(
            lambda context, parts=parts: tf.nest.map_structure(tf.constant, parts[context.replica_id_in_sync_group])
        )
        result = tf.function(lambda given, strategy=strategy, step=step: strategy.run(step, (given,)))(given)
        sums = tf.nest.map_structure(lambda v, s=strategy: np.sum(s.experimental_local_results(v), 0), result)
        found.append([np.asarray(value) for value in tf.nest.flatten(sums)])
        found[-1] += [weight.numpy() for weight in model.non_trainable_weights]
    assert len(found[0]) == len(found[1]) > 8
    for one, two in zip(*found):
        np.testing.assert_allclose(two, one, rtol=0, atol=2e-5 * max(1, np.abs(one).max()))


def test_wrong_arguments_are_refused():
    for arguments, words in [
        ({"pixel_weight": 0.0}, "one term must be left"),
        ({"instance": BYOL(8, 8), "pixel_weight": -1.0}, "must not be negative"),
        ({"instance": BYOL(8, 8), "instance_weight": 0.0}, "Pass instance=None"),
        ({"instance": BYOL(8, 8), "pixel_weight": 0.0, "projection": ProjectionHead(8, 8)}, "Leave them"),
        ({"instance": BYOL(8, 8, level="3")}, "must give level '3'"),
        ({"level": ("4", "5")}, r"equal channels. Received \[6, 8\]"),
        ({"level": ()}, "one at least"),
    ]:
        with pytest.raises(ValueError, match=words):
            PixPro(encoder(), **arguments)
    with pytest.raises(ValueError, match="temperature must be positive"):
        SimCLR(temperature=-1)
    with pytest.raises(ValueError, match="hidden must be at least 1"):
        BYOL(hidden=0)
