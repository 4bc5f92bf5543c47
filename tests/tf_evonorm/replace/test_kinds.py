"""Which layers and functions count as normalizations, as activations, and as something that values pass."""

import functools

import pytest
import tensorflow as tf

from tf_evonorm.keras_generation import KERAS_2
from tf_evonorm.replace import kinds

layers = tf.keras.layers
NAMES = ["relu", "elu", "selu", "gelu", "swish", "silu", "softplus", "softsign", "tanh", "relu6"]
NAMES += ["mish", "leaky_relu"] if KERAS_2 is False or hasattr(tf.keras.activations, "mish") else []
NAMES = [name for name in NAMES if hasattr(tf.keras.activations, name)]
NAMES += [] if KERAS_2 else ["hard_swish", "hard_silu", "celu", "squareplus"]


@pytest.mark.parametrize("name", NAMES)
def test_activations_by_name(name):
    assert kinds.activation_name(layers.Activation(name))


def hard_swish(x):
    return x * tf.nn.relu6(x + 3) / 6


class HardSwish(layers.Layer):
    def call(self, inputs):
        return hard_swish(inputs)


ACTIVATIONS = {
    "ReLU": lambda: layers.ReLU(6.0),
    "LeakyReLU": layers.LeakyReLU,
    "PReLU": layers.PReLU,
    "ELU": layers.ELU,
    "function": lambda: layers.Activation(hard_swish),
    "partial": lambda: layers.Activation(functools.partial(tf.nn.leaky_relu, alpha=0.1)),
    "layer within Activation": lambda: layers.Activation(layers.LeakyReLU(0.1)),
    "Lambda": lambda: layers.Lambda(tf.nn.relu),
    "own class": HardSwish,
    "TimeDistributed": lambda: layers.TimeDistributed(layers.ReLU()),
}


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_activations_of_every_spelling(case):
    assert kinds.activation_name(ACTIVATIONS[case]())


@pytest.mark.parametrize("name", ["sigmoid", "softmax", "linear", "hard_sigmoid"])
def test_gates_and_classifiers_are_no_activations(name):
    assert kinds.activation_name(layers.Activation(name)) is None


class FrozenBatchNorm(layers.BatchNormalization):
    pass


class MyGroupNorm(layers.Layer):
    axis = -1


def test_normalizations_subclasses_and_users_own_are_found():
    assert kinds.is_normalization(layers.BatchNormalization())
    assert kinds.is_normalization(FrozenBatchNorm())
    assert kinds.is_normalization(MyGroupNorm())
    assert kinds.is_normalization(layers.GroupNormalization(1))
    assert not kinds.is_normalization(layers.LayerNormalization())
    assert not kinds.is_normalization(layers.Normalization())
