"""The pretext model made of a list of terms, PixContrast by its name, and `.keras` files of version 0.1, which knew no
terms."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm.keras_generation import KERAS_2
from tf_pixpro import (
    BYOL,
    PixContrast,
    PixelConsistency,
    PixelContrast,
    PixelPropagation,
    PixPro,
    ProjectionHead,
    SimCLR,
)

OLD = pathlib.Path(__file__).parent / "version_0_1" / ("keras2" if KERAS_2 else "keras3")


def encoder():
    images = tf.keras.Input((None, None, 3))
    return tf.keras.Model(images, {"5": tf.keras.layers.Conv2D(4, 4, strides=4)(images)})


def batch():
    random = np.random.default_rng(1)
    views = {f"view{v}": random.normal(size=(2, 16, 12, 3)).astype("f") for v in (1, 2)}
    return {**views, **{f"box{v}": np.tile([[0.1 * v, 0, 0.9, 1]], (2, 1)).astype("f") for v in (1, 2)}}


def heads():
    return ProjectionHead(4, 3), PixelPropagation()


AS_ARGUMENTS = {
    "pixels": lambda: PixPro(encoder(), *heads(), pixel_weight=0.7),
    "both": lambda: PixPro(encoder(), *heads(), instance=BYOL(4, 3), instance_weight=0.5),
    "instance": lambda: PixPro(encoder(), instance=SimCLR(hidden=4, features=3), pixel_weight=0.0),
    "contrast": lambda: PixContrast(encoder(), heads()[0], 0.2, instance=BYOL(4, 3), instance_weight=0.5),
}
AS_TERMS = {
    "pixels": lambda: PixPro(encoder(), terms=[PixelConsistency(*heads(), weight=0.7)]),
    "both": lambda: PixPro(encoder(), terms=[BYOL(4, 3, weight=0.5), PixelConsistency(*heads())]),
    "instance": lambda: PixPro(encoder(), terms=[SimCLR(hidden=4, features=3)]),
    "contrast": lambda: PixPro(encoder(), terms=[PixelContrast(heads()[0], 0.2), BYOL(4, 3, weight=0.5)]),
}


@pytest.mark.parametrize("kind", AS_TERMS)
def test_terms_and_separate_arguments_make_the_same_model(kind, tmp_path):
    one, two = AS_ARGUMENTS[kind](), AS_TERMS[kind]()
    assert [w.shape for w in one.weights] == [w.shape for w in two.weights]
    two.set_weights(one.get_weights())
    logs = [model.pretext_loss(batch(), training=False) for model in (one, two)]
    assert {name: float(value) for name, value in logs[0].items()} == {n: float(v) for n, v in logs[1].items()}
    for model in (one, two):
        model.save(tmp_path / "model.keras")
        again = tf.keras.models.load_model(tmp_path / "model.keras")
        assert type(again) is type(model)
        assert float(again.pretext_loss(batch(), training=False)["loss"]) == float(logs[0]["loss"])


@pytest.mark.parametrize(("name", "loss"), [("pixpro", -3.5249319076538086), ("pixcontrast", 3.1978158950805664)])
def test_files_of_version_0_1_load(name, loss):
    """Losses as that version gave them; its encoder has the class BatchNorm, its BYOL term no weight of its own."""
    model = tf.keras.models.load_model(OLD / f"{name}.keras")
    assert float(model.pretext_loss(batch(), training=False)["loss"]) == pytest.approx(loss, rel=1e-6)
    if name == "pixpro":
        assert (model.pixel_weight, model.instance_weight, int(model.momentum_step.numpy())) == (0.7, 0.5, 1)
    else:
        assert isinstance(model, PixContrast) and model.temperature == 0.25


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"terms": []}, "Received none"),
        ({"terms": [PixelContrast(), PixelContrast()]}, "Received PixelContrast, PixelContrast"),
        ({"terms": [ProjectionHead()]}, "Received ProjectionHead"),
        ({"terms": [BYOL(weight=0.0)]}, "weight=0.0"),
        ({"terms": [PixelContrast()], "instance": BYOL()}, "Pass them to the terms"),
        ({"terms": [PixelContrast()], "pixel_weight": 0.5}, "Pass them to the terms"),
    ],
)
def test_wrong_terms_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        PixPro(encoder(), **arguments)
    with pytest.raises(ValueError, match=r"must not be negative. Received weight=-1"):
        PixelConsistency(weight=-1)
