"""What ends a program in one line, and what is a bug and shows its traceback."""

import pytest
import tensorflow as tf

from experiments.launch import flags
from tf_evonorm.mistakes import Mistake
from tf_pixpro import momentum_schedule


def raised(function):
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def full_disk():
    raise OSError(28, "No space left on device")


def bad_image():
    images = tf.data.Dataset.from_tensors(b"no image").map(tf.io.decode_png)
    next(iter(images))


def mistake():
    raise Mistake("wrong")


@pytest.mark.parametrize(
    "function", [mistake, full_disk, bad_image, lambda: momentum_schedule(0, steps=0), lambda: tf.io.read_file("none")]
)
def test_mistakes_files_and_data_are_expected(function):
    assert flags.is_expected(raised(function))


@pytest.mark.parametrize(
    "function",
    [
        lambda: int("x"),
        lambda: len(5),
        lambda: {}["key"],
        lambda: tf.keras.layers.Dense(-1),
        lambda: tf.matmul(tf.zeros([2, 3]), tf.zeros([2, 3])),
    ],
)
def test_bugs_are_not(function):
    assert not flags.is_expected(raised(function))
