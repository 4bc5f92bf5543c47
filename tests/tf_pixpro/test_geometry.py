"""Boxes, cell centres and the positive mask."""

import numpy as np
import pytest
import tensorflow as tf
from reference import notes

from tf_pixpro.geometry import cell_centres, cell_distances, crop_box, flip_box, positive_mask

CELLS = (5, 7)


@pytest.fixture
def boxes():
    corners = np.random.default_rng(0).uniform(size=(2, 16, 4)).astype(np.float32)
    return corners[0], corners[1]


def test_mask_is_the_authors(golden):
    archive = golden("pixpro/a_regression_loss.npz")
    for case in notes(archive)["cases"]:
        key = f"c{case['id']}/"
        mask = positive_mask(
            archive[key + "coord_q"],
            archive[key + "coord_k"],
            (case["H"], case["W"]),
            float(archive[key + "pos_ratio"]),
        )
        np.testing.assert_array_equal(mask.numpy(), archive[key + "pos_mask"].astype(bool), err_msg=key)


def test_boxes_are_the_authors(golden):
    archive = golden("pixpro/f_coords.npz")
    width, height, top, left, h, w, hflip, vflip = archive["params"].T
    boxes = flip_box(crop_box(top, left, h, w, height, width), hflip.astype(bool), vflip.astype(bool))
    np.testing.assert_allclose(boxes.numpy(), archive["coord"], rtol=0, atol=1e-7)


def test_centres_lie_inside_the_box_in_row_major_order(boxes):
    box = np.sort(boxes[0].reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    centres = cell_centres(box, CELLS).numpy().reshape(-1, *CELLS, 2)
    assert (centres > box[:, None, None, :2]).all() and (centres < box[:, None, None, 2:]).all()
    expected_x = box[:, :1] + (np.arange(CELLS[1]) + 0.5) / CELLS[1] * (box[:, 2:3] - box[:, :1])
    np.testing.assert_allclose(centres[:, 0, :, 0], expected_x, rtol=1e-6)
    assert (np.diff(centres[..., 1], axis=1) > 0).all()


def test_flipping_a_box_mirrors_its_cells_and_twice_is_nothing(boxes):
    plain = cell_centres(boxes[0], CELLS).numpy().reshape(-1, *CELLS, 2)
    flipped = cell_centres(flip_box(boxes[0], True, False), CELLS).numpy().reshape(-1, *CELLS, 2)
    np.testing.assert_allclose(flipped[:, :, ::-1], plain, atol=1e-6)
    twice = flip_box(flip_box(boxes[0], True, True), True, True)
    np.testing.assert_array_equal(twice.numpy(), boxes[0])


def test_mask_of_swapped_views_is_the_transpose(boxes):
    there, back = positive_mask(*boxes, CELLS), positive_mask(*reversed(boxes), CELLS)
    np.testing.assert_array_equal(there.numpy(), np.swapaxes(back.numpy(), 1, 2))


def test_distance_against_numpy_in_double_precision(boxes):
    rows, columns = CELLS

    def centres_and_diagonal(box):
        x1, y1, x2, y2 = box.astype(np.float64)
        step = np.array([(x2 - x1) / columns, (y2 - y1) / rows])
        grid = np.array([(c + 0.5, r + 0.5) for r in range(rows) for c in range(columns)])
        return np.array([x1, y1]) + grid * step, np.hypot(*step)

    (centres1, diagonal1), (centres2, diagonal2) = (centres_and_diagonal(box[3]) for box in boxes)
    expected = np.linalg.norm(centres1[:, None] - centres2[None], axis=-1) / max(diagonal1, diagonal2)
    np.testing.assert_allclose(cell_distances(boxes[0][3], boxes[1][3], CELLS), expected, rtol=1e-4)


def test_unknown_map_sizes_work_in_a_graph(boxes):
    inside = tf.function(lambda b1, b2, rows, columns: positive_mask(b1, b2, (rows, columns)))
    np.testing.assert_array_equal(inside(*boxes, *map(tf.constant, CELLS)), positive_mask(*boxes, CELLS))


def test_wrong_arguments_are_refused(boxes):
    with pytest.raises(ValueError, match="distance must be positive"):
        positive_mask(*boxes, CELLS, distance=0)
    with pytest.raises(ValueError, match=r"a box must be \[B, 4\]"):
        positive_mask(boxes[0][:, :3], boxes[1], CELLS)
