"""The pretext model against the authors': forward, gradients, statistics, momentum, whole training steps."""

import numpy as np
import pytest
import tensorflow as tf
from authors_state import is_pixel_part, load
from reference import channels_last, kernel, notes, relative_error

import tf_evonorm
from tf_pixpro import LARS, PixelPropagation, PixPro, ProjectionHead, WarmupCosine
from tf_pixpro.geometry import positive_mask
from tf_pixpro.pretext.losses import pixel_consistency

WHOLE_MODEL = ["pixpro_t1_64", "pixpro_r50_t0_96x128", "pixpro_ins_t2_224"]


def authors_model(meta) -> PixPro:
    args = meta["args"]
    encoder = tf_evonorm.backbones.resnet(50, blocks=meta["blocks"], width=1 / meta["width_divisor"])
    return PixPro(
        encoder,
        ProjectionHead(hidden=meta["proj_inner"], features=args["feature_dim"]),
        PixelPropagation(args["pixpro_p"], args["pixpro_transform_layer"], args["pixpro_clamp_value"]),
        distance=args["pixpro_pos_ratio"],
        momentum=args["pixpro_momentum"],
        steps=meta["K"],
    )


def batch_of(archive, prefix="", dtype=np.float64) -> dict:
    views = {f"view{v}": (channels_last(archive[f"{prefix}im{v}_u8"]).astype(dtype) - 127.5) / 64 for v in (1, 2)}
    return {**views, **{f"box{v}": archive[f"{prefix}coord{v}"] for v in (1, 2)}}


@pytest.mark.parametrize("tag", WHOLE_MODEL)
def test_one_forward_is_the_authors(golden, float64, tag):
    given, expected = golden(f"pixpro/c_{tag}_in.npz"), golden(f"pixpro/c_{tag}_out.npz")
    meta = notes(given)
    model = authors_model(meta)
    named = load(model, given)
    model.momentum_step.assign(meta["k_before"])
    batch = batch_of(given)
    np.testing.assert_allclose(model.current_momentum(), meta["momentum_used"], rtol=1e-12)

    with tf.GradientTape() as tape:
        features = [model.encoder(batch[f"view{v}"], training=True)["5"] for v in (1, 2)]
        projections = [model.projection(f, training=True) for f in features]
        predictions = [model.propagate(p, training=True) for p in projections]
        model.update_momentum_encoder()
        targets = [model.target(batch[f"view{v}"], training=True) for v in (1, 2)]
        mask = positive_mask(batch["box1"], batch["box2"], tuple(meta["feature_hw"]), model.distance)
        one = tf.reduce_mean(pixel_consistency(predictions[0], targets[1], mask))
        two = tf.reduce_mean(pixel_consistency(predictions[1], targets[0], tf.linalg.matrix_transpose(mask)))
        loss = one + two
    for v in (1, 2):
        for part, value in (("encoder", features), ("projector", projections)):
            assert relative_error(value[v - 1], channels_last(expected[f"act/{part}/view{v}"])) < 1e-6
        assert relative_error(predictions[v - 1], channels_last(expected[f"pred/view{v}"])) < 1e-9
    np.testing.assert_allclose([one, two], [expected["loss_pix_12"], expected["loss_pix_21"]], rtol=3e-6)
    assert model.momentum_step == meta["k_after"]
    for name, variable in named.items():
        if f"after/{name}" in expected:
            assert relative_error(variable, kernel(expected[f"after/{name}"])) < 1e-9, name

    if meta["args"]["pixpro_ins_loss_weight"]:
        return  # The reference gradients of this case contain the instance term.
    names = [name for name in named if f"gradnorm/{name}" in expected]
    assert len(names) > 20
    for name, gradient in zip(names, tape.gradient(loss, [named[name] for name in names])):
        if name == "projector.linear1.bias":
            assert np.abs(gradient).max() < 1e-12  # a bias before a normalization has no gradient
            continue
        # The authors keep the count of positives in float32, which leaves 1e-7 in the gradients.
        np.testing.assert_allclose(tf.norm(gradient), expected[f"gradnorm/{name}"], rtol=1e-6, err_msg=name)
        if f"grad/{name}" in expected:
            assert relative_error(gradient, kernel(expected[f"grad/{name}"])) < 1e-6, name


@pytest.mark.parametrize("tag", WHOLE_MODEL[:2])
def test_float32_loss_stays_near_double_precision(golden, tag):
    given, expected = golden(f"pixpro/c_{tag}_in.npz"), golden(f"pixpro/c_{tag}_out.npz")
    model = authors_model(notes(given))
    load(model, given)
    model.momentum_step.assign(notes(given)["k_before"])
    np.testing.assert_allclose(
        model.pretext_loss(batch_of(given, dtype=np.float32))["loss"], expected["loss"], rtol=2e-5
    )


@pytest.mark.parametrize("name", ["lars", "sgd"])
def test_three_training_steps_are_the_authors(golden, float64, name):
    given, expected = golden(f"pixpro/c_train3_{name}_in.npz"), golden(f"pixpro/c_train3_{name}_out.npz")
    meta = notes(given)
    args = meta["args"]
    model = authors_model(meta)
    named = load(model, given)
    per_epoch = meta["n_iter_per_epoch"]
    peak = args["batch_size"] / 256 * args["base_learning_rate"]
    schedule = WarmupCosine(
        peak, args["epochs"] * per_epoch, args["warmup_epoch"] * per_epoch, args["warmup_multiplier"]
    )
    if name == "lars":
        optimizer = LARS(schedule, args["momentum"], args["weight_decay"])
    else:
        # No adaptation: plain momentum SGD with L2 on every weight, as the authors' option `sgd`.
        optimizer = tf.keras.optimizers.SGD(1.0)
    buffers = {n: 0.0 for n in named}
    for step in range(meta["steps"]):
        np.testing.assert_allclose(schedule(step), expected["lr_used"][step], rtol=1e-12)
        np.testing.assert_allclose(model.current_momentum(), expected["momentum_used"][step], rtol=1e-12)
        batch = batch_of(given, f"step{step}/")
        if name == "lars":
            loss = model.learn(batch, optimizer)["loss"]
        else:
            loss = sgd_step(model, batch, named, buffers, float(schedule(step)), args)
        np.testing.assert_allclose(loss, expected["losses"][step], rtol=5e-6)
        for key in (k for k in expected if k.startswith(f"norm_after{step}/")):
            np.testing.assert_allclose(tf.norm(named[key.split("/")[1]]), expected[key], rtol=1e-6, err_msg=key)
    for key in (k for k in expected if k.startswith("after/") and is_pixel_part(k.removeprefix("after/"))):
        assert relative_error(named[key.removeprefix("after/")], kernel(expected[key])) < 1e-6, key


def sgd_step(model, batch, named, buffers, rate, args):
    """torch.optim.SGD in words: decay into the gradient, buffer, step."""
    weights = [(n, v) for n, v in named.items() if "_k." not in n and "running" not in n]
    with tf.GradientTape() as tape:
        loss = model.pretext_loss(batch)["loss"]
    for (name, variable), gradient in zip(weights, tape.gradient(loss, [v for _, v in weights])):
        buffers[name] = args["momentum"] * buffers[name] + gradient + args["weight_decay"] * variable
        variable.assign_sub(rate * buffers[name])
    return loss


def small_encoder() -> tf.keras.Model:
    """Two convolutions; quick to trace and to compile."""
    images = x = tf.keras.Input((None, None, 3))
    levels = {}
    for level, (filters, stride) in {"4": (8, 4), "5": (16, 2)}.items():
        x = tf.keras.layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        x = levels[level] = tf_evonorm.BatchNormAct()(x)
    return tf.keras.Model(images, levels)


def tiny(size=(32, 48), **kwargs):
    encoder = kwargs.pop("encoder", None) or small_encoder()
    generator = np.random.default_rng(0)
    batch = {f"view{v}": generator.normal(size=(4, *size, 3)).astype(np.float32) for v in (1, 2)}
    batch |= {f"box{v}": np.tile([[0.1 * v, 0, 0.9, 1]], (4, 1)).astype(np.float32) for v in (1, 2)}
    return PixPro(encoder, ProjectionHead(16, 8), **kwargs), batch


def test_fit_saves_and_resumes(tmp_path):
    model, batch = tiny(steps=10)
    data = tf.data.Dataset.from_tensors(batch)
    model.compile(LARS(0.1, weight_decay=1e-5))
    unseen = (
        model.projection.expand.bias
    )  # the normalization behind it takes it away: its gradient is rounding or nothing
    weights = [w for w in model.trainable_weights if w is not unseen]
    assert len(weights) == len(model.trainable_weights) - 1
    before = [w.numpy() for w in weights]
    history = model.fit(data.repeat(2), verbose=0).history
    assert {"loss", "positives", "without_positives", "projection_std", "momentum", "gradient_norm"} <= set(history)
    changed = [(old != new.numpy()).any() for old, new in zip(before, weights)]
    assert all(changed), [w.name for w, c in zip(weights, changed) if not c]
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    assert again.momentum_step == model.momentum_step == 2
    np.testing.assert_array_equal(again.encoder(batch["view1"])["5"], model.encoder(batch["view1"])["5"])
    np.testing.assert_allclose(again.evaluate(data, verbose=0), model.evaluate(data, verbose=0), rtol=1e-6)
    first, second = (
        m.fit(data.repeat(2), verbose=0).history["loss"] for m in (model, again)
    )  # the second sees velocities
    np.testing.assert_allclose(first, second, rtol=1e-6)
    for kept, back in zip(model.weights, again.weights, strict=True):
        np.testing.assert_allclose(kept, back, rtol=1e-4, atol=1e-6)


def test_whole_step_compiles_to_the_same_loss():
    losses = []
    for jit in (False, True):
        tf.keras.utils.set_random_seed(1)
        model, batch = tiny()
        optimizer = LARS(0.1)
        step = tf.function(lambda b, m=model, o=optimizer: m.learn(b, o)["loss"], jit_compile=jit)
        losses.append([float(step(batch)) for _ in range(3)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_trains(dtype):
    tf.keras.mixed_precision.set_global_policy(f"mixed_{dtype}")
    try:
        model, batch = tiny()
        scaled = tf.keras.mixed_precision.LossScaleOptimizer if dtype == "float16" else lambda optimizer: optimizer
        model.compile(scaled(LARS(0.1)))
        loss = model.fit(tf.data.Dataset.from_tensors(batch).repeat(2), verbose=0).history["loss"]
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(loss).all() and model.encoder.trainable_weights[0].dtype == tf.float32


def test_any_level_and_model_gardens_own_backbone():
    vision = pytest.importorskip("official.vision.modeling.backbones", reason="needs tf-models-official")
    encoder = vision.ResNet(18, input_specs=tf.keras.layers.InputSpec(shape=[None, 64, 64, 3]))
    _, batch = tiny((64, 64))
    model = PixPro(encoder, ProjectionHead(16, 8), level="4")
    model.compile("sgd")
    assert np.isfinite(model.fit(tf.data.Dataset.from_tensors(batch), verbose=0).history["loss"]).all()
    assert model.propagate(model.project(batch["view1"])).shape == (4, 4, 4, 8)


def test_collapse_measure_tells_spread_from_collapse():
    model, batch = tiny()
    assert 0 < float(model.pretext_loss(batch, training=False)["projection_std"]) < 2
    same = {**batch, "view1": np.ones_like(batch["view1"])}
    model.projection.reduce.kernel.assign(tf.zeros_like(model.projection.reduce.kernel))
    np.testing.assert_allclose(model.pretext_loss(same, training=False)["projection_std"], 0, atol=1e-5)


def test_wrong_arguments_are_refused():
    encoder = small_encoder()
    with pytest.raises(ValueError, match=r"must give level '7'.*'4', '5'"):
        PixPro(encoder, level="7")
    with pytest.raises(ValueError, match="no dict of levels"):
        PixPro(tf.keras.Sequential([tf.keras.layers.Dense(3, input_shape=(2, 2, 3))]))
    model, batch = tiny()
    with pytest.raises(ValueError, match="a batch must hold view1, view2, box1, box2"):
        model.pretext_loss({"view1": batch["view1"]})
