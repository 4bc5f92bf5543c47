"""A generator as a SavedModel that answers without this project: images from latents, or from a seed."""

from __future__ import annotations

import tensorflow as tf

from tf_pixpro.export import write_served


def export_generator(generator: tf.keras.Model, path: str, class_names) -> str:
    """Writes a SavedModel with two signatures, which answer {'images': [B, H, W, 3] uint8}.

    - `serving_default`, inputs `latent` [B, z] float32 and `label` [B] int64.
    - `sample`, inputs `seed` [] int64, `label` [B] int64, `truncation` [] float32: latents are drawn from the normal distribution cut
      off at two standard deviations, times `truncation`. The same seed gives the same image at the same place of any batch.

    Both fail with InvalidArgumentError for a label that is no class. `class_names` [K] string is a variable of the module.

    Args:
      generator: [latent [B, z], label [B]] -> images [B, H, W, 3] in -1..1.
      path: folder to be made. It appears whole or not at all.
      class_names: K strings.

    Returns:
      The path.

    Raises:
      ValueError: if `path` is taken.

    Source: the truncation is that of the released BigGAN modules; the paper (section 3.1) draws anew what exceeds the threshold.
    """
    length, classes = generator.inputs[0].shape[-1], len(class_names)

    def images(latent, label):
        in_range = tf.debugging.Assert(tf.reduce_all((label >= 0) & (label < classes)), ["no such class", label])
        with tf.control_dependencies([in_range]):
            made = generator([latent, tf.identity(label)], training=False)
        return {"images": tf.saturate_cast(tf.round((made + 1) * 127.5), tf.uint8)}

    def sample(seed, label, truncation):
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
