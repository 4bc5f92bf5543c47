"""Propagation and losses in blocks: the same numbers and gradients as all at once, whatever the block."""

import functools
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tf_pixpro import PixelPropagation, PixPro, ProjectionHead
from tf_pixpro.geometry import positive_mask
from tf_pixpro.pretext.losses import pixel_consistency, pixel_contrast
from tf_pixpro.pretext.pairwise import BlockPairs, rowwise

CELLS, BLOCKS = (5, 6), [7, 10, 64]  # 30 pixels: blocks that divide them, do not, and are larger


def maps():
    random = np.random.default_rng(0)
    return [tf.constant(random.normal(size=(3, *CELLS, 8)).astype("f")) for _ in range(2)]


def boxes():
    random = np.random.default_rng(1)
    corner = random.uniform(0, 0.4, (2, 3, 2))
    ends = np.concatenate([corner, corner + random.uniform(0.3, 0.6, (2, 3, 2))], -1).astype("f")
    ends[0, 0], ends[1, 0] = [0, 0, 0.2, 0.2], [0.7, 0.7, 1, 1]  # an image without pairs
    ends[1, 1] = ends[1, 1][[2, 1, 0, 3]]  # a flipped view
    return [tf.constant(box) for box in ends]


def values_and_slopes(function, inputs):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        result = function(*inputs)
        score = tf.reduce_sum(result * tf.sin(tf.reshape(tf.range(tf.size(result), dtype="float32"), result.shape)))
    return result, *tape.gradient(score, inputs)


def assert_same(dense, blocked, inputs, jit=False):
    expected = values_and_slopes(dense, inputs)
    for got, want in zip(tf.function(values_and_slopes, jit_compile=jit)(blocked, inputs), expected):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("loss", [pixel_consistency, pixel_contrast])
def test_losses_are_the_dense_ones(loss, block):
    one, two = boxes()
    mask = positive_mask(one, two, CELLS, 0.7)
    assert 0 < tf.reduce_sum(tf.cast(mask, tf.int32)) < tf.size(mask)
    pairs = BlockPairs(one, two, CELLS, 0.7, block)
    assert_same(functools.partial(loss, mask=mask), functools.partial(loss, mask=pairs), maps())
    np.testing.assert_array_equal(pairs.counts(), tf.reduce_sum(tf.cast(mask, tf.float32), [1, 2]))
    transposed = tf.linalg.matrix_transpose(mask)
    np.testing.assert_allclose(loss(*maps(), pairs.transposed), loss(*maps(), transposed), atol=1e-6)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("sharpness", [0.5, 2])
def test_propagation_is_the_dense_one(sharpness, block):
    dense = PixelPropagation(sharpness, value_layers=1)
    blocked = PixelPropagation(sharpness, value_layers=1, block=block)
    for layer in (dense, blocked):
        layer.build((None, None, None, 8))
    blocked.set_weights(dense.get_weights())
    weights = [layer.trainable_weights for layer in (dense, blocked)]
    assert_same(dense, blocked, maps()[:1])
    slopes = []
    for layer, own in zip((dense, blocked), weights):
        with tf.GradientTape() as tape:
            score = tf.reduce_sum(layer(maps()[0]) * maps()[1])
        slopes.append(tape.gradient(score, own))
    for want, got in zip(*slopes):
        np.testing.assert_allclose(got, want, atol=1e-6 * np.abs(want).max())


def test_xla_and_eager_mode_give_the_same():
    mask, pairs = positive_mask(*boxes(), CELLS, 0.7), BlockPairs(*boxes(), CELLS, 0.7, 7)
    dense, blocked = (functools.partial(pixel_contrast, mask=m) for m in (mask, pairs))
    assert_same(dense, blocked, maps(), jit=True)
    for got, want in zip(values_and_slopes(blocked, maps()), values_and_slopes(dense, maps())):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_sizes_may_be_unknown():
    layer = PixelPropagation(value_layers=0, block=4)
    run = tf.function(layer, input_signature=[tf.TensorSpec([None, None, None, 8])])
    np.testing.assert_allclose(run(maps()[0]), PixelPropagation(value_layers=0)(maps()[0]), atol=1e-5)


def test_the_model_gives_the_same_loss_and_gradients():
    random = np.random.default_rng(2)
    views = {f"view{v}": random.normal(size=(3, 40, 48, 3)).astype("f") for v in (1, 2)}
    batch = {**views, "box1": boxes()[0], "box2": boxes()[1]}
    losses, slopes, weights = [], [], None
    for block in (None, 8):
        images = tf.keras.Input((None, None, 3))
        encoder = tf.keras.Model(images, {"5": tf.keras.layers.Conv2D(8, 8, strides=8)(images)})
        model = PixPro(encoder, ProjectionHead(8, 8), PixelPropagation(block=block), block=block)
        if weights is not None:
            model.set_weights(weights)
        weights = model.get_weights()
        with tf.GradientTape() as tape:
            logs = model.pretext_loss(batch, training=False)
        losses.append([float(logs[name]) for name in ("loss", "positives", "without_positives")])
        slopes.append(tape.gradient(logs["loss"], model.trainable_weights))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
    for want, got in zip(*slopes):
        np.testing.assert_allclose(got, want, atol=1e-6 * max(1, np.abs(want).max()))


def test_rows_of_several_kinds():
    """A function of two row tensors and one whole one: the weighted distances of points to others."""
    points, factors, others = (
        tf.random.stateless_normal(s, [1, n]) for n, s in enumerate([(2, 9, 3), (2, 9, 1), (2, 4, 3)])
    )

    def distances(points, factors, others):
        return factors * tf.reduce_sum(tf.square(points[:, :, None] - others[:, None]), -1)

    inputs = [points, factors, others]
    assert_same(distances, lambda *t: rowwise(distances, t[:2], t[2:], 4), inputs)


def test_wrong_blocks_are_refused():
    for make in (
        lambda: PixelPropagation(block=0),
        lambda: rowwise(tf.identity, [tf.ones([1, 2, 1])], [], 0),
    ):
        with pytest.raises(ValueError, match="block must be at least 1"):
            make()


PEAK = """
import tensorflow as tf
from tf_pixpro import PixelPropagation
from tf_pixpro.pretext.losses import pixel_consistency
from tf_pixpro.pretext.pairwise import BlockPairs

layer = PixelPropagation(block=56)
boxes = tf.constant([[0.0, 0.0, 0.8, 0.8]] * 32), tf.constant([[0.2, 0.2, 1.0, 1.0]] * 32)
maps = [tf.random.normal([32, 56, 56, 256]) for _ in range(2)]

@tf.function
def slopes(query, key):
    with tf.GradientTape() as tape:
        tape.watch(query)
        loss = tf.reduce_mean(pixel_consistency(layer(query), key, BlockPairs(*boxes, (56, 56), 0.7, 56)))
    return tape.gradient(loss, [query, *layer.trainable_weights])

layer.build(maps[0].shape)
slopes.get_concrete_function(*maps)

def peak():  # of this program; what getrusage says begins with the peak of the process that started it
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

before = peak()
assert all(bool(tf.reduce_all(tf.math.is_finite(slope))) for slope in slopes(*maps))
print(peak() - before)
"""


@pytest.mark.slow
def test_large_maps_fit_into_two_gigabytes():
    """Propagation, loss and gradients of 32 maps of 56x56 cells and 256 channels; all pairs at once would be 1.3 GB an
    array."""
    root = pathlib.Path(__file__).resolve().parents[3]
    run = subprocess.run([sys.executable, "-c", PEAK], cwd=root, capture_output=True, text=True, timeout=800)
    assert run.returncode == 0, run.stderr[-2000:]
    assert 0.1 < int(run.stdout) / 2**20 < 2  # kilobytes
