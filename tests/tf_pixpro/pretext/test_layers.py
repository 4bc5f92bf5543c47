"""Pixel propagation and the projection head."""

import numpy as np
import pytest
import tensorflow as tf
from reference import channels_last, kernel, notes

from tf_pixpro.pretext.layers import PixelPropagation, ProjectionHead, unit


def load_values(layer: PixelPropagation, state: dict) -> dict:
    """Puts the authors' value-transform parameters into the layer; returns their names beside our variables."""
    names = {}
    for index, conv in enumerate(layer.value):
        prefix = f"linear{index + 1}." if layer.value_layers == 2 else ""
        names.update({prefix + "weight": conv.kernel, prefix + "bias": conv.bias})
    if layer.norm is not None:
        norm = layer.norm
        names.update({"bn1.weight": norm.gamma, "bn1.bias": norm.beta})
        names.update({"bn1.running_mean": norm.moving_mean, "bn1.running_var": norm.moving_variance})
    for name, variable in names.items():
        variable.assign(kernel(state[name]))
    return names


def test_propagation_and_its_gradients_are_the_authors(golden, float64):
    archive = golden("pixpro/b_featprop.npz")
    for case in notes(archive)["cases"]:
        key = case["id"] + "/"
        layer = PixelPropagation(sharpness=case["p"], value_layers=case["layers"], clamp=case["clamp"])
        features = tf.constant(channels_last(archive[key + "feat"]), tf.float64)
        layer.build(features.shape)
        state = {
            name.removeprefix(key + "state/"): archive[name] for name in archive if name.startswith(key + "state/")
        }
        names = load_values(layer, state)
        with tf.GradientTape() as tape:
            tape.watch(features)
            result = layer(features, training=case["mode"] == "train")
            score = tf.reduce_sum(result * channels_last(archive[key + "cotangent"]))
        weights = [variable for name, variable in names.items() if "running" not in name]
        gradients = tape.gradient(score, [features, *weights])
        check = {"rtol": 1e-8, "atol": 1e-11, "err_msg": key}
        np.testing.assert_allclose(result, channels_last(archive[key + "out"]), **check)
        np.testing.assert_allclose(unit(result), channels_last(archive[key + "out_normalised"]), **check)
        np.testing.assert_allclose(gradients[0], channels_last(archive[key + "grad_feat"]), **check)
        for (name, _), gradient in zip([item for item in names.items() if "running" not in item[0]], gradients[1:]):
            np.testing.assert_allclose(gradient, kernel(archive[f"{key}grad/{name}"]), **check)
        for name in (n for n in names if "running" in n and f"{key}after/{n}" in archive):
            np.testing.assert_allclose(names[name], archive[f"{key}after/{name}"], **check)


def test_head_starts_like_the_authors_framework():
    head = ProjectionHead(hidden=512, features=64)
    head.build((None, None, None, 256))
    for conv, fan_in in ((head.expand, 256), (head.reduce, 512)):
        for weights in (conv.kernel.numpy(), conv.bias.numpy()):
            assert abs(weights).max() <= fan_in**-0.5
        np.testing.assert_allclose(conv.kernel.numpy().std(), fan_in**-0.5 / 3**0.5, rtol=0.05)
    assert not np.allclose(head.expand.bias.numpy(), 0)


def test_a_pixel_alike_to_none_keeps_its_own_value():
    features = tf.reshape(tf.eye(4), [1, 2, 2, 4])
    np.testing.assert_allclose(PixelPropagation(value_layers=0)(features), features, atol=1e-6)


def test_half_precision_input_near_its_limit_stays_finite():
    features = tf.fill([1, 3, 3, 8], tf.constant(60000.0, tf.float16))
    layer = PixelPropagation(value_layers=1, dtype="mixed_float16")
    result = layer(features)
    assert result.dtype == tf.float16 and np.isfinite(result.numpy()).all()


def test_wrong_arguments_are_refused():
    for arguments, words in [
        ({"sharpness": 0}, "sharpness must be positive"),
        ({"value_layers": 3}, "value_layers must be 0, 1 or 2"),
        ({"clamp": -1.0, "sharpness": 0.5}, "no fractional power"),
    ]:
        with pytest.raises(ValueError, match=words):
            PixelPropagation(**arguments)
    with pytest.raises(ValueError, match="hidden must be at least 1"):
        ProjectionHead(hidden=0)
    with pytest.raises(ValueError, match="last axis must be known"):
        ProjectionHead().build((None, None, None, None))
