"""Pictures of a generator: samples of each class, and what lies between two latents, as PNG files and in TensorBoard."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf


class SamplePictures:
    """A train action that draws the same latents again and again.

    Args:
      generator: [latent [B, z], label [B]] -> images [B, H, W, 3] in -1..1.
      num_classes: K; of more than `rows` classes so many, evenly spread, are drawn.
      folder: gets samples-STEP.png, interpolation-STEP.png and the summaries; None computes and writes nothing.
      global_step: variable, the step reached.
      every: steps between two drawings; the last step is drawn too.
      steps: of the run.
      rows, columns: of the grids; a row is a class.
      seed: of the latents.
    """

    def __init__(self, generator, num_classes, folder, global_step, every, steps, rows=10, columns=8, seed=0):
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

    def __call__(self, output=None):
        step = int(self._step.numpy())
        if step % self._every and step != self._steps:
            return
        for name, latents in (("samples", self._latents), ("interpolation", self._between)):
            images = self._generator([latents, self._labels], training=False)
            if self._folder is None:  # the others only take part
                continue
            picture = grid(images, self._columns)
            with self._writer.as_default(step=step):
                tf.summary.image(name, picture[None])
            tf.io.write_file(os.path.join(self._folder, f"{name}-{step}.png"), tf.io.encode_png(picture))
        self._writer.flush()


def grid(images, columns: int):
    """[n * columns, H, W, 3] in -1..1 -> one picture [n * (H + 1), columns * (W + 1), 3] uint8, row by row, with black lines between."""
    images = np.asarray(tf.saturate_cast(tf.round((images + 1) * 127.5), tf.uint8))
    images = np.pad(images, [(0, 0), (0, 1), (0, 1), (0, 0)])
    _, height, width, colours = images.shape
    rows = images.reshape(-1, columns, height, width, colours).transpose(0, 2, 1, 3, 4)
    return rows.reshape(-1, columns * width, colours)
