"""Where the cells of a view lie in its source image: boxes, cell centres, distances, positive pairs.

A box is (x1, y1, x2, y2) in fractions of the source image, one unit per axis. A flip swaps the two ends of an axis and
nobody sorts them afterwards, so one formula for cell centres, `x1 + (column + 1/2) / columns * (x2 - x1)`, covers
flipped views.
"""

from __future__ import annotations

import tensorflow as tf

from tf_evonorm import functional
from tf_evonorm.mistakes import Mistake


def crop_box(
    top: tf.Tensor | int,
    left: tf.Tensor | int,
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    image_height: tf.Tensor | int,
    image_width: tf.Tensor | int,
) -> tf.Tensor:
    """Box of a crop in fractions of its source image.

    Args:
      top, left, height, width: the crop in pixels; scalars or tensors of one shape [...], integer.
      image_height, image_width: size of the source image in pixels, at least 2 each.

    Returns:
      [..., 4] float32 (x1, y1, x2, y2); first and last pixel of the image are 0 and 1.

    Source: PixPro section 3.1; the division by side - 1 is the authors' code (`transform_coord`).
    """
    top, left, height, width = (tf.cast(value, tf.float32) for value in (top, left, height, width))
    rows, columns = tf.cast(image_height, tf.float32) - 1.0, tf.cast(image_width, tf.float32) - 1.0
    ends = [left / columns, top / rows, (left + width - 1.0) / columns, (top + height - 1.0) / rows]
    return tf.stack(ends, axis=-1)


def flip_box(box: tf.Tensor, horizontal: tf.Tensor | bool, vertical: tf.Tensor | bool = False) -> tf.Tensor:
    """Box of a view that was flipped after cropping.

    Args:
      box: [..., 4] (x1, y1, x2, y2).
      horizontal, vertical: bool, or bool tensors [...].

    Returns:
      [..., 4], the ends of each flipped axis swapped.
    """
    box = tf.convert_to_tensor(box)
    x1, y1, x2, y2 = tf.unstack(box, axis=-1)
    ends = [
        tf.where(horizontal, x2, x1),
        tf.where(vertical, y2, y1),
        tf.where(horizontal, x1, x2),
        tf.where(vertical, y1, y2),
    ]
    return tf.stack(ends, axis=-1)


def cell_size(box: tf.Tensor, cells: tuple[int, int]) -> tf.Tensor:
    """Signed size of one cell, [..., 2] (width, height) in fractions of the source image."""
    box, (rows, columns) = functional.raised(tf.convert_to_tensor(box)), cells
    return (box[..., 2:] - box[..., :2]) / tf.cast(tf.stack([columns, rows]), box.dtype)


def cell_centres(box: tf.Tensor, cells: tuple[int, int]) -> tf.Tensor:
    """Centres of a view's cells in the source image.

    Args:
      box: [..., 4] float32 or float64.
      cells: (rows, columns) of the feature map.

    Returns:
      [..., rows * columns, 2] (x, y) in fractions of the source image, row-major like a flattened [h, w] map.
    """
    box, (rows, columns) = functional.raised(tf.convert_to_tensor(box)), cells
    column, row = tf.meshgrid(tf.range(columns), tf.range(rows))
    centre = tf.cast(tf.reshape(tf.stack([column, row], axis=-1), [-1, 2]), box.dtype) + 0.5
    return box[..., tf.newaxis, :2] + centre * cell_size(box, cells)[..., tf.newaxis, :]


def cell_distances(box1: tf.Tensor, box2: tf.Tensor, cells: tuple[int, int]) -> tf.Tensor:
    """Distance of each cell of view 1 from each cell of view 2.

    Args:
      box1, box2: [..., 4].
      cells: (rows, columns) of both feature maps.

    Returns:
      [..., h*w, h*w], rows for view 1; the unit is the longer of the two views' cell diagonals. NaN where both boxes
      have no area.

    Source: PixPro equation 1; that the longer diagonal is the unit is confirmed by the authors and in their code.
    """
    return centre_distances(cell_centres(box1, cells), cell_centres(box2, cells), longer_diagonal(box1, box2, cells))


def longer_diagonal(box1: tf.Tensor, box2: tf.Tensor, cells: tuple[int, int]) -> tf.Tensor:
    """The longer of two views' cell diagonals, [...] in fractions of the source image."""
    return tf.maximum(tf.norm(cell_size(box1, cells), axis=-1), tf.norm(cell_size(box2, cells), axis=-1))


def centre_distances(centres1: tf.Tensor, centres2: tf.Tensor, diagonal: tf.Tensor) -> tf.Tensor:
    """Distance of each of some cell centres from each of others.

    Args:
      centres1, centres2: [..., n, 2] and [..., m, 2], see `cell_centres`.
      diagonal: [...], the unit, see `longer_diagonal`.

    Returns:
      [..., n, m].
    """
    offset = centres1[..., :, tf.newaxis, :] - centres2[..., tf.newaxis, :, :]
    return tf.norm(offset, axis=-1) / diagonal[..., tf.newaxis, tf.newaxis]


def positive_mask(box1: tf.Tensor, box2: tf.Tensor, cells: tuple[int, int], distance: float = 0.7) -> tf.Tensor:
    """Which cells of two views show the same position.

    Args:
      box1, box2: [B, 4] float32, boxes of the views in their source image.
      cells: (h, w) of the feature maps.
      distance: threshold in cell diagonals (of the view with the larger cells).

    Returns:
      [B, h*w, h*w] bool; entry (i, j) is true where cell i of view 1 is nearer than `distance` to cell j of view 2.

    Raises:
      Mistake: if `distance` is not positive or a box has not four numbers.

    Source: PixPro section 3.1, equation 1. The paper writes <=, the authors' code (followed here) compares strictly.
    """
    if not distance > 0:
        raise Mistake(f"distance must be positive. Received distance={distance}. Pass cell diagonals, for example 0.7.")
    for box in (box1, box2):
        if tf.convert_to_tensor(box).shape[-1] != 4:
            raise Mistake(f"a box must be [B, 4] = x1, y1, x2, y2. Received shape {tf.convert_to_tensor(box).shape}.")
    return cell_distances(box1, box2, cells) < distance
