"""Pictures: sizes, that they show the views, that a line joins the cells that correspond."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pixpro.pretext.figures import correspondence_figure, similarity_figure

WHITE = np.full((64, 64, 3), 10.0, np.float32)  # clipped to white
BOX, FAR = tf.constant([0.0, 0.0, 0.4, 0.4]), tf.constant([0.6, 0.6, 1.0, 1.0])


def coloured(picture):
    return (picture.max(axis=-1).astype(int) - picture.min(axis=-1) > 60).sum()


def test_corresponding_cells_are_joined_and_others_are_not():
    joined = correspondence_figure(WHITE, WHITE, BOX, BOX, (4, 4))
    apart = correspondence_figure(WHITE, WHITE, BOX, FAR, (4, 4))
    assert joined.shape == apart.shape == (320, 600, 3) and joined.dtype == np.uint8
    assert coloured(joined) > 1000
    assert coloured(apart) == 0


def test_the_similarity_map_is_brightest_where_the_cell_itself_is():
    features = np.zeros((2, 2, 4))
    features[[0, 0, 1, 1], [0, 1, 0, 1]] = np.eye(4)
    picture = similarity_figure(WHITE, WHITE, features, features, (1, 0))
    assert picture.shape == (320, 900, 3)
    # Over the second view, [1, 0] is viridis' yellow and the others its violet.
    green = picture[40:, 620:880, 1].astype(int)
    assert green[200:230, 40:80].mean() > green[60:90, 160:200].mean() + 50


def test_views_need_not_be_square():
    wide = np.zeros((32, 96, 3), np.float32)
    features = np.random.default_rng(0).normal(size=(1, 3, 4))
    assert similarity_figure(wide, wide, features, features).dtype == np.uint8
    assert correspondence_figure(wide, wide, BOX, BOX, (1, 3)).dtype == np.uint8


def test_a_cell_outside_the_map():
    features = np.ones((2, 2, 4))
    with pytest.raises(ValueError, match=r"Received cell=\(2, 0\)"):
        similarity_figure(WHITE, WHITE, features, features, (2, 0))
