"""LARS and the schedules against the authors' numbers."""

import numpy as np
import pytest
import tensorflow as tf
from reference import notes

from tf_pixpro.optimization import LARS, WarmupCosine, WarmupStep, momentum_schedule


def test_lars_is_the_authors(golden, float64):
    archive = golden("pixpro/d_lars.npz")
    for case in notes(archive)["cases"]:
        key = case["id"]
        names = [n.split("/")[-1] for n in archive if n.startswith(f"{key}/init/")]
        weights = {name: tf.Variable(archive[f"{key}/init/{name}"].astype(np.float64)) for name in names}
        optimizer = LARS(0.0, momentum=case["sgd_momentum"], weight_decay=case["weight_decay"])
        optimizer.build(list(weights.values()))
        for step, rate in enumerate(archive[f"{key}/lr"]):
            optimizer.learning_rate = float(rate)
            pairs = [
                (tf.constant(archive[f"{key}/grad{step}/{name}"], tf.float64), weights[name])
                for name in names
                if f"{key}/grad{step}/{name}" in archive
            ]
            optimizer.apply_gradients(pairs)
            for name in names:
                expected = archive[f"{key}/param{step}/{name}"]
                np.testing.assert_allclose(
                    weights[name], expected, rtol=1e-12, atol=1e-15, err_msg=f"{key} {step} {name}"
                )


@pytest.mark.parametrize("name", ["small_cosine", "small_cosine_nowarm", "small_step", "imagenet_100ep_bs1024"])
def test_rates_are_the_authors(golden, float64, name):
    archive = golden("pixpro/e_schedules.npz")
    case = next(c for c in notes(archive)["cases"] if c["id"] == name)
    per_epoch = case["n_iter_per_epoch"]
    warmup = {"warmup_steps": case["warmup_epoch"] * per_epoch, "warmup_factor": case["warmup_multiplier"]}
    if case["lr_scheduler"] == "cosine":
        schedule = WarmupCosine(case["peak_lr"], case["epochs"] * per_epoch, **warmup)
    else:
        schedule = WarmupStep(
            case["peak_lr"], [m * per_epoch for m in case["lr_decay_epochs"]], case["lr_decay_rate"], **warmup
        )
    rates = [float(schedule(step)) for step in archive[f"{name}/step"]]
    np.testing.assert_allclose(rates, archive[f"{name}/lr"], rtol=1e-12)
    again = type(schedule).from_config(schedule.get_config())
    assert float(again(3)) == float(schedule(3))


@pytest.mark.parametrize("name", ["momentum_imagenet_100ep", "momentum_imagenet_400ep", "momentum_small"])
def test_momentum_is_the_authors(golden, float64, name):
    archive = golden("pixpro/e_schedules.npz")
    case = next(c for c in notes(archive)["cases"] if c["id"] == name)
    values = momentum_schedule(archive[f"{name}/k"], case["K"], case["base_momentum"])
    np.testing.assert_allclose(values, archive[f"{name}/m"], rtol=1e-13)


def test_lars_survives_its_config_and_trains_with_fit():
    optimizer = LARS(WarmupCosine(1.0, 10, 2), weight_decay=1e-4)
    again = tf.keras.optimizers.deserialize(tf.keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(3,))])
    model.compile(again, "mse")
    before = model.get_weights()
    model.fit(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32), verbose=0)
    assert all((old != new).any() for old, new in zip(before, model.get_weights()))


def test_wrong_arguments_are_refused():
    for call, words in [
        (lambda: LARS(0.1, momentum=1.0), r"momentum must be in \[0, 1\)"),
        (lambda: LARS(0.1, weight_decay=-1), "weight_decay must be 0 or more"),
        (lambda: LARS(0.1, trust_coefficient=0), "trust_coefficient must be positive"),
        (lambda: WarmupCosine(1.0, 5, 5), "steps must be larger than warmup_steps"),
        (lambda: momentum_schedule(0, 0), "steps must be at least 1"),
        (lambda: momentum_schedule(0, 5, 1.5), r"start must be in \[0, 1\]"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
