"""A layer of one Keras is refused by models of the other, and says what to set; each process knows one answer, so each
asks its own."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import tensorflow as tf
import keras, tf_keras
import tf_evonorm, tf_pixpro

other = keras if tf.keras.layers.Layer is tf_keras.layers.Layer else tf_keras


class Hidden(other.layers.Layer):
    def __init__(self):
        super().__init__()
        self.parts = [tf_evonorm.EvoNormS0()]

    def call(self, x):
        return self.parts[0](x)


def functional():
    tf_evonorm.EvoNormB0()(other.Input([4, 4, 8]))


def inside_a_layer():
    Hidden()(other.Input([4, 4, 8]))


def inside_a_call():
    Hidden()(tf.zeros([1, 4, 4, 8]))


def pretext():
    x = other.Input([8, 8, 3])
    tf_pixpro.PixPro(other.Model(x, {"2": other.layers.Conv2D(4, 3)(x)}))


for mixed in functional, inside_a_layer, inside_a_call, pretext:
    try:
        mixed()
    except Exception as error:
        assert f"TF_USE_LEGACY_KERAS={int(other is tf_keras)}" in str(error), (mixed.__name__, error)
    else:
        raise AssertionError(mixed.__name__)

x = tf.keras.Input([8, 8, 3])
model = tf.keras.Model(x, tf_evonorm.EvoNormB0()(x))
assert len(model.weights) == 4
try:
    import tf_pixpro.transfer
except ImportError as error:
    assert "TF_USE_LEGACY_KERAS=1" in str(error)
    print("transfer refused")
"""


@pytest.mark.parametrize("legacy", ["0", "1"])
def test_the_other_keras_is_refused(legacy):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "TF_USE_LEGACY_KERAS": legacy},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    import keras

    keras_3 = legacy == "0" and keras.__version__.startswith("3.")
    assert run.stdout.split("\n")[0] == ("transfer refused" if keras_3 else "")
