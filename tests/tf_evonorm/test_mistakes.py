"""A mistake stays one on its way out of traced code, and programs print it in one line."""

import pytest
import tensorflow as tf

from experiments.launch import flags
from tf_evonorm.mistakes import Mistake

TEXT = "labels must be there. Received none. Pass them."


def refuse(labels, outputs):
    raise Mistake(TEXT)


@pytest.mark.parametrize("autograph", [True, False])
def test_traced_code_raises_a_mistake(autograph):
    with pytest.raises(Mistake, match=TEXT) as caught:
        tf.function(refuse, autograph=autograph)(tf.zeros([1]), tf.zeros([1]))
    assert flags.line(caught.value) == TEXT


def test_fit_raises_a_mistake():
    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.compile("sgd", refuse)
    with pytest.raises(Mistake, match=TEXT) as caught:
        model.fit(tf.zeros([4, 2]), tf.zeros([4, 1]), verbose=0)
    assert flags.line(caught.value) == TEXT
