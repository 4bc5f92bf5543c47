"""Sample grids of a generator, and interpolations between latents, as PNG files and in TensorBoard."""

from __future__ import annotations

import os
from typing import Any, Optional

import numpy as np
import tensorflow as tf


class SamplePictures:
    """A train action that generates images from the same latents at regular steps.

    Args:
      generator: [latent [B, z], label [B]] -> images [B, H, W, 3] in [-1, 1].
      num_classes: number of classes, K; if there are more than `rows`, evenly spaced ones are shown.
      folder: gets samples-STEP.png, interpolation-STEP.png and the summaries; None generates but writes nothing.
      global_step: variable with the current step.
      every: steps between two grids; the last step has one too.
      steps: steps of the run.
      rows, columns: size of the grids; each row is a class.
      seed: seed of the latents.
    """

    def __init__(
        self,
        generator: tf.keras.Model,
        num_classes: int,
        folder: Optional[str],
        global_step: tf.Variable,
        every: int,
        steps: int,
        rows: int = 10,
        columns: int = 8,
        seed: int = 0,
    ):
        self._generator, self._folder, self._step = generator, folder, global_step
        self._every, self._steps = every, steps
        rows = min(rows, num_classes)
        length = generator.inputs[0].shape[-1]
        self._columns = columns
        self._labels = tf.repeat(tf.constant(np.linspace(0, num_classes - 1, rows).astype("int64")), columns)
        self._latents = tf.random.stateless_normal([rows * columns, length], [seed, 0])
        ends = tf.random.stateless_normal([rows, 2, 1, length], [seed, 1])
        share = tf.reshape(tf.linspace(0.0, 1.0, columns), [1, columns, 1])
        self._between = tf.reshape(ends[:, 0] * (1 - share) + ends[:, 1] * share, [-1, length])
        self._writer = tf.summary.create_file_writer(folder) if folder else tf.summary.create_noop_writer()

    def __call__(self, output: Any = None) -> None:
        step = int(self._step.numpy())
        if step % self._every and step != self._steps:
            return
        for name, latents in (("samples", self._latents), ("interpolation", self._between)):
            images = self._generator([latents, self._labels], training=False)
            if self._folder is None:  # only the chief writes
                continue
            image = grid(images, self._columns)
            with self._writer.as_default(step=step):
                tf.summary.image(name, image[None])
            tf.io.write_file(os.path.join(self._folder, f"{name}-{step}.png"), tf.io.encode_png(image))
        self._writer.flush()


def grid(images: tf.Tensor, columns: int) -> np.ndarray:
    """Arranges images row by row in a grid with black lines between them.

    Args:
      images: [n * columns, H, W, 3] in [-1, 1].
      columns: images in a row.

    Returns:
      One image [n * (H + 1), columns * (W + 1), 3] uint8.
    """
    padded = np.pad(as_bytes(images).numpy(), [(0, 0), (0, 1), (0, 1), (0, 0)])
    _, height, width, channels = padded.shape
    rows = padded.reshape(-1, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return rows.reshape(-1, columns * width, channels)


def as_bytes(images: tf.Tensor) -> tf.Tensor:
    """Converts images in [-1, 1] to uint8, rounded and saturated."""
    return tf.saturate_cast(tf.round((tf.convert_to_tensor(images) + 1) * 127.5), tf.uint8)
