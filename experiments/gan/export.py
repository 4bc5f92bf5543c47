"""A generator as a SavedModel that runs without this project: images from latents, or from a seed."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from experiments.gan.samples import as_bytes
from tf_pixpro.export import write_served


def export_generator(generator: tf.keras.Model, path: str, class_names: Sequence[str]) -> str:
    """Writes a SavedModel with two signatures, both of which return {'images': [B, H, W, 3] uint8}.

    - `serving_default`, inputs `latent` [B, z] float32 and `label` [B] int64.
    - `sample`, inputs `seed` [] int64, `label` [B] int64, `truncation` [] float32: latents are drawn from the normal
      distribution truncated at two standard deviations and multiplied by `truncation`. The same seed gives the same
      image at the same position of any batch.

    Both fail with InvalidArgumentError for a label that is no class. `class_names` [K] string is a variable of the
    module.

    Args:
      generator: [latent [B, z], label [B]] -> images [B, H, W, 3] in [-1, 1].
      path: folder to create, atomically.
      class_names: names of the K classes.

    Returns:
      The path.

    Raises:
      Mistake: if `path` exists.

    Source: the truncation is that of the released BigGAN modules; the paper (section 3.1) redraws values beyond the
      threshold.
    """
    length, classes = generator.inputs[0].shape[-1], len(class_names)

    def images(latent: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
        in_range = tf.debugging.Assert(tf.reduce_all((label >= 0) & (label < classes)), ["no such class", label])
        with tf.control_dependencies([in_range]):
            generated = generator([latent, tf.identity(label)], training=False)
        return {"images": as_bytes(generated)}

    def sample(seed: tf.Tensor, label: tf.Tensor, truncation: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.range(tf.size(label, out_type=tf.int64))
        draw = tf.map_fn(
            lambda row: tf.random.stateless_truncated_normal([length], tf.stack([seed, row])),
            rows,
            fn_output_signature=tf.TensorSpec([length], tf.float32),
        )
        return images(draw * truncation, label)

    label = tf.TensorSpec([None], tf.int64, "label")
    served = tf.Module(name="generator")
    served.weights, served.class_names = generator.weights, tf.Variable(list(class_names), trainable=False)
    served.images = tf.function(images, input_signature=[tf.TensorSpec([None, length], tf.float32, "latent"), label])
    settings = [tf.TensorSpec([], tf.int64, "seed"), label, tf.TensorSpec([], tf.float32, "truncation")]
    served.sample = tf.function(sample, input_signature=settings)
    return write_served(served, {"serving_default": served.images, "sample": served.sample}, path)
