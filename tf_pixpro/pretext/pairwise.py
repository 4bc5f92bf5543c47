"""Work on all pairs of pixels, some rows at a time.

Memory grows with the pixels times a block, not with their square.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Callable

import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_pixpro.geometry import cell_centres, centre_distances, longer_diagonal


def rowwise(function: Callable, rows: Sequence[tf.Tensor], whole: Sequence[tf.Tensor], block: int) -> tf.Tensor:
    """Applies a function to blocks of rows one after another.

    The backward pass computes each block again instead of keeping it.

    Args:
      function: (*some rows [B, r, ...], *whole) -> [B, r, k]. Each row of the result depends on its own row and on
        `whole` alone, and the function uses no variables.
      rows: list of floating tensors [B, n, ...], cut along their second axis. A last block that is not full is filled
        with zeros.
      whole: list of floating tensors that every block needs.
      block: rows at a time.

    Returns:
      [B, n, k], what `function(*rows, *whole)` gives, with its first derivatives.

    Raises:
      Mistake: if block is not positive.
    """
    check_block(block)
    if rows[0].shape[1] is not None and rows[0].shape[1] <= block:
        return function(*rows, *whole)

    @tf.custom_gradient
    def blocked(*tensors):
        tensors = [tf.stop_gradient(tensor) for tensor in tensors]  # an outer tape would keep every block's work
        work = _Blocks(function, tensors[: len(rows)], tensors[len(rows) :], block)
        return work.forward(), work.backward

    return blocked(*rows, *whole)


def check_block(block: int | None) -> None:
    """Refuses a block size that is not a positive number; None is for no blocks."""
    if block is not None and block < 1:
        raise Mistake(f"block must be at least 1. Received block={block}. Pass pixels at a time, or None for all.")


class _Blocks:
    def __init__(self, function, rows, whole, block):
        self.function, self.whole, self.block = function, whole, block
        self.size = rows[0].shape[1] or tf.shape(rows[0])[1]
        self.blocks = -(-self.size // block)
        self.rows = [self._padded(tensor) for tensor in rows]

    def forward(self):
        def one(index):
            return self.function(*self._cut(self.rows, index), *self.whole)

        dtype = self.rows[0].dtype
        parts = tf.map_fn(one, tf.range(self.blocks), fn_output_signature=dtype, parallel_iterations=1)
        return self._joined(parts)

    def backward(self, upstream):
        upstream = self._padded(upstream)

        def one(index, parts, sums):
            inputs = [*self._cut(self.rows, index), *self.whole]
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                result = self.function(*inputs)
            zero = tf.UnconnectedGradients.ZERO
            slopes = tape.gradient(result, inputs, *self._cut([upstream], index), unconnected_gradients=zero)
            parts = [part.write(index, slope) for part, slope in zip(parts, slopes)]
            return index + 1, parts, [a + b for a, b in zip(sums, slopes[len(parts) :])]

        state = (
            tf.constant(0),
            [tf.TensorArray(tensor.dtype, self.blocks) for tensor in self.rows],
            [tf.zeros_like(tensor) for tensor in self.whole],
        )
        _, parts, sums = tf.while_loop(lambda index, *_: index < self.blocks, one, state, parallel_iterations=1)
        return [*(self._joined(part.stack()) for part in parts), *sums]

    def _padded(self, tensor):
        if isinstance(self.size, int) and self.size % self.block == 0:
            return tensor
        missing = self.blocks * self.block - self.size
        return tf.pad(tensor, [[0, 0], [0, missing], *[[0, 0]] * (len(tensor.shape) - 2)])

    def _cut(self, tensors, index):
        return [self._cut_one(tensor, index * self.block) for tensor in tensors]

    def _cut_one(self, tensor, start):
        size = [side or tf.shape(tensor)[axis] for axis, side in enumerate(tensor.shape)]
        size[1] = self.block  # a fixed size, for XLA
        return tf.slice(tensor, [0, start, *[0] * (len(size) - 2)], size)

    def _joined(self, parts):
        """[blocks, B, block, ...] -> [B, n, ...]."""
        parts = tf.transpose(parts, [1, 0, *range(2, len(parts.shape))])
        shape = tf.shape(parts)
        joined = tf.reshape(parts, tf.concat([shape[:1], [self.blocks * self.block], shape[3:]], 0))
        joined = tf.ensure_shape(joined, [parts.shape[0], None, *parts.shape[3:]])
        return joined[:, : self.size]


@dataclasses.dataclass(frozen=True)
class BlockPairs:
    """The positive pairs of two views, never held all at once; the losses take it in place of a mask.

    Attributes:
      box1, box2: [B, 4], see `tf_pixpro.geometry`.
      cells: (h, w) of the feature maps.
      distance: threshold in cell diagonals.
      block: pixels of view 1 at a time.
    """

    box1: tf.Tensor
    box2: tf.Tensor
    cells: tuple
    distance: float
    block: int

    @property
    def transposed(self) -> BlockPairs:
        """The same pairs with rows for view 2."""
        return dataclasses.replace(self, box1=self.box2, box2=self.box1)

    def per_pixel(self, function: Callable, query: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """`function(query rows [B, r, D], key [B, n, D], mask [B, r, n] bool) -> [B, r, k]` for all rows, [B, n, k]."""
        centres = [cell_centres(box, self.cells) for box in (self.box1, self.box2)]
        unit = longer_diagonal(self.box1, self.box2, self.cells)

        def rows(query, centres1, key, centres2, unit):
            return function(query, key, centre_distances(centres1, centres2, unit) < self.distance)

        return rowwise(rows, [query, centres[0]], [key, centres[1], unit], self.block)

    def counts(self) -> tf.Tensor:
        """Number of pairs of each image, [B] float32."""
        nothing = tf.zeros([tf.shape(self.box1)[0], self.cells[0] * self.cells[1], 1])

        def count(query, key, mask):
            return tf.reduce_sum(tf.cast(mask, tf.float32), axis=-1, keepdims=True)

        return tf.reduce_sum(self.per_pixel(count, nothing, nothing), axis=[1, 2])
