"""What stands between a model and its score: windows, statistics recomputed, predictions back on their image."""

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm import EvoNormB0
from tf_pixpro.train.precise_bn import PreciseNorm, moving_statistics
from tf_pixpro.transfer import paste_back
from tf_pixpro.transfer.models import sliding_window


def test_windows_cover_every_pixel_once_or_more_and_are_averaged():
    images = tf.random.stateless_normal([2, 7, 10, 3], [1, 2])
    # A network without neighbours says the same in every window.
    same = sliding_window.slide(lambda part: 2.0 * part, images, size=4, stride=3)
    np.testing.assert_allclose(same, 2 * images, rtol=1e-6)
    # The number of a window, averaged: rows start at 0 and 3, columns at 0, 3 and 6.
    numbers = iter(range(100))
    averaged = sliding_window.slide(lambda part: tf.fill([2, 4, 4, 1], float(next(numbers))), images, size=4, stride=3)[
        0, :, :, 0
    ]
    expected = np.zeros((7, 10))
    count = np.zeros((7, 10))
    for number, (top, left) in enumerate((top, left) for top in (0, 3) for left in (0, 3, 6)):
        expected[top : top + 4, left : left + 4] += number
        count[top : top + 4, left : left + 4] += 1
    np.testing.assert_allclose(averaged, expected / count, rtol=1e-6)
    whole = sliding_window.slide(lambda part: part[:, ::2, ::2], images, size=12, stride=6)
    assert whole.shape == images.shape
    with pytest.raises(ValueError, match="1 <= stride <= size"):
        sliding_window.slide(lambda part: part, images, size=4, stride=5)


def test_statistics_become_the_mean_over_batches():
    model = tf.keras.Sequential(
        [tf.keras.layers.BatchNormalization(momentum=0.9, input_shape=(None, None, 3)), EvoNormB0(momentum=0.8)]
    )
    model(tf.zeros([1, 2, 2, 3]))
    norm, evolved = model.layers
    batches = [tf.random.stateless_normal([4, 5, 5, 3], [seed, 0], mean=1.0, stddev=2.0) for seed in range(5)]
    inputs = [
        norm(batch, training=True) for batch in batches
    ]  # what the second layer sees does not depend on moving statistics
    step = tf.Variable(10)
    strategy = tf.distribute.get_strategy()

    def forward(images):
        model(images, training=True)

    precise = PreciseNorm(forward, model, lambda: iter(batches), strategy, step, every=10, steps=5)
    assert len(list(moving_statistics(model))) == 3
    precise()
    flat = [batch.numpy().astype(np.float64).reshape(-1, 3) for batch in batches]
    np.testing.assert_allclose(norm.moving_mean, np.mean([b.mean(0) for b in flat], 0), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, np.mean([b.var(0) for b in flat], 0), rtol=2e-2)  # n or n - 1
    flat = [x.numpy().astype(np.float64).reshape(-1, 3) for x in inputs]
    np.testing.assert_allclose(evolved.moving_variance, np.mean([b.var(0) for b in flat], 0), rtol=1e-4)
    before = norm.moving_mean.numpy()
    step.assign(11)  # no evaluation comes next
    precise()
    np.testing.assert_array_equal(norm.moving_mean, before)


def test_predictions_go_back_to_their_image():
    # An image of 60 x 80 in a frame of 48 x 48: the factor is 0.6, and rows 36 to 48 are padding.
    info = np.array([[60, 80], [48, 48], [0.6, 0.6], [0, 0]], np.float32)
    np.testing.assert_allclose(paste_back.boxes([[6, 12, 18, 48]], info), [[20, 10, 60, 20]], rtol=1e-6)
    logits = np.zeros((48, 48, 3), np.float32)
    logits[:18, :, 1] = 1  # the upper half of what is not padding
    logits[36:, :, 2] = 5  # padding
    numbers = paste_back.classes(logits, info)
    assert numbers.shape == (60, 80) and (numbers[:29] == 1).all() and (numbers[31:] == 0).all()
    inside = paste_back.mask(np.ones((28, 28), np.float32), (20, 10, 40, 20), (60, 80))
    assert inside.shape == (60, 80) and abs(inside[10:30, 20:60].mean() - 1) < 0.06 and not inside[:8].any()
