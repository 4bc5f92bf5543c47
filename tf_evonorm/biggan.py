"""BigGAN-deep with any normalization and activation, for 32 to 256 pixels: generator and discriminator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import tensorflow as tf

from tf_evonorm.layers.baselines import BatchNormAct
from tf_evonorm.layers.conditional import ConditionalNormAct, spectral
from tf_evonorm.layers.norm_act import NormAct
from tf_evonorm.mistakes import Mistake

__all__ = ["ConditionalNormAct", "SelfAttention", "discriminator", "generator"]

CHANNELS = 128
# For each resolution the channels of the generator's stages, from 4 x 4 upwards, in units of 128: (in, out) by
# neighbours.
GENERATOR = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
# The same for the discriminator, from the image downwards, and how many of its stages halve the sides.
DISCRIMINATOR = {
    32: ((4, 4, 4, 4), 2),
    64: ((1, 2, 4, 8, 16), 4),
    128: ((1, 2, 4, 8, 16, 16), 5),
    256: ((1, 2, 4, 8, 8, 16, 16), 6),
}


def generator(
    resolution: int = 128,
    width: float = 1.0,
    num_classes: int = 1000,
    latent: int = 128,
    embedding: int = 128,
    norm_act: Optional[Callable[..., NormAct]] = None,
    attention: Optional[int] = 64,
    output_channels: int = 3,
) -> tf.keras.Model:
    """The generator.

    Args:
      resolution: side of the images, pixels: 32, 64, 128 or 256.
      width: share of the paper's channels; 1 is 128 at the output of a 128-pixel network.
      num_classes: K.
      latent: length z of the latent vector.
      embedding: length of the class embedding, which all layers share.
      norm_act: callable returning a fresh `NormAct`, called with affine=False for the conditional ones; None is
        BatchNorm and ReLU over all replicas.
      attention: side of the map after which self-attention stands, pixels; None or 0 for none.
      output_channels: of the last convolution, of which the first three are the image.

    Returns:
      `tf.keras.Model`, [latent [B, z] float, label [B] integer] -> images [B, H, W, 3] float32 in -1..1.

    Raises:
      Mistake: an unknown resolution, or a width that leaves no whole channels in the bottlenecks.

    Source: BigGAN, appendix B (BigGAN-deep). With ImageNet's classes and 128 pixels it has 50,244,484 trainable
      parameters, as compare_gan's test of its own re-implementation asserts; the authors' released modules have
      output_channels=128, which makes 50.4 million, the paper's number, and 55.9 million with 256 pixels. 32 and 64
      pixels follow the first author's PyTorch code, where the paper has none; their numbers are unconfirmed.
    """
    channels = _channels(resolution, width, GENERATOR[_known(resolution)])
    norm_act = norm_act or (lambda **options: BatchNormAct(synchronized=True, **options))
    z = tf.keras.Input([latent], name="latent")
    label = tf.keras.Input([], dtype="int64", name="label")
    table = tf.keras.layers.Embedding(num_classes, embedding, embeddings_initializer=_orthogonal(), name="embedding")
    condition = tf.keras.layers.Concatenate(name="condition")([z, table(label)])
    x = _dense(16 * channels[0], "seed")(condition)
    x = tf.keras.layers.Reshape([4, 4, channels[0]])(x)
    for stage, (here, there) in enumerate(zip(channels, channels[1:])):
        x = _up(x, condition, here, norm_act, False, f"stage{stage}.0")
        x = _up(x, condition, there, norm_act, True, f"stage{stage}.1")
        if x.shape[1] == attention:
            x = SelfAttention(name="attention")(x)
    x = norm_act(name="last")(x)
    x = _convolution(output_channels, 3, "colours")(x)
    images = tf.keras.layers.Activation("tanh", dtype="float32", name="images")(x[:, :, :, :3])
    return tf.keras.Model([z, label], images, name="generator")


def discriminator(
    resolution: int = 128, width: float = 1.0, num_classes: int = 1000, attention: Optional[int] = 64
) -> tf.keras.Model:
    """The discriminator, without normalization of its activations, with ReLU.

    Args:
      resolution, width, num_classes: as in `generator`.
      attention: side of the map after which self-attention stands, pixels; None or 0 for none.

    Returns:
      `tf.keras.Model`, [images [B, H, W, 3] in -1..1, label [B] integer] -> scores [B] float32, high for images taken
      for real.

    Raises:
      Mistake: as `generator`.

    Source: BigGAN, appendix B (BigGAN-deep), with the projection of Miyato and Koyama 2018: 34,590,210 trainable
      parameters for ImageNet at 128 pixels, as compare_gan's test asserts and the paper says (34.6 million). The last
      map is summed over its positions, as in the first author's PyTorch code; compare_gan takes the mean.
    """
    multiples, halvings = DISCRIMINATOR[_known(resolution)]
    channels = _channels(resolution, width, multiples)
    images = tf.keras.Input([resolution, resolution, 3], name="image")
    label = tf.keras.Input([], dtype="int64", name="label")
    x = _convolution(channels[0], 3, "stem")(images)
    for stage, there in enumerate(channels[1:]):
        x = _down(x, there, stage < halvings, f"stage{stage}.0")
        x = _down(x, there, False, f"stage{stage}.1")
        if x.shape[1] == attention:
            x = SelfAttention(name="attention")(x)
    positions = x.shape[1] * x.shape[2]
    x = tf.keras.layers.Activation("relu", dtype="float32")(x)  # summed over positions in full precision
    x = tf.keras.layers.GlobalAveragePooling2D(dtype="float32")(x)
    x = tf.keras.layers.Rescaling(float(positions), name="sum", dtype="float32")(x)
    known = tf.keras.layers.Embedding(num_classes, channels[-1], embeddings_initializer=_orthogonal(), name="class")
    likeness = tf.keras.layers.Dot(-1, name="projection", dtype="float32")([x, spectral(known)(label)])
    score = tf.keras.layers.Add(dtype="float32")([_dense(1, "score")(x), likeness])
    scores = tf.keras.layers.Reshape([], name="scores", dtype="float32")(score)
    return tf.keras.Model([images, label], scores, name="discriminator")


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class SelfAttention(tf.keras.layers.Layer):
    """x + gain * attention over all positions of the map: [B, H, W, C] -> the same; even sides, C a multiple of 8.

    Keys and values are the largest of every 2 x 2 positions; queries and keys have C / 8 channels, values C / 2. The
    learned gain starts at 0.

    Source: Zhang et al. 2019 (SAGAN), as BigGAN has it: without biases, spectrally normalized.
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        sizes = {"query": channels // 8, "key": channels // 8, "value": channels // 2, "output_map": channels}
        for name, size in sizes.items():
            setattr(self, name, _convolution(size, 1, name, use_bias=False))
        for name in ("query", "key", "value"):
            getattr(self, name).build(input_shape)
        self.output_map.build([*input_shape[:-1], channels // 2])
        self.gain = self.add_weight(name="gain", shape=[], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs, training=None):
        _, height, width, channels = inputs.shape

        def rows(layer, pooled):
            x = layer(inputs, training=training)
            x = tf.nn.max_pool2d(x, 2, 2, "VALID") if pooled else x
            return tf.reshape(x, [-1, height * width // (4 if pooled else 1), x.shape[-1]])

        alike = tf.matmul(rows(self.query, False), rows(self.key, True), transpose_b=True)
        weights = tf.cast(tf.nn.softmax(tf.cast(alike, tf.float32)), inputs.dtype)
        mixed = tf.reshape(tf.matmul(weights, rows(self.value, True)), [-1, height, width, channels // 2])
        return inputs + tf.cast(self.gain, inputs.dtype) * self.output_map(mixed, training=training)

    def compute_output_shape(self, input_shape):
        return input_shape


@tf.keras.utils.register_keras_serializable("tf_evonorm")
class Doubled(tf.keras.layers.Layer):
    """Each position four times: [B, H, W, C] -> [B, 2H, 2W, C].

    Keras' UpSampling2D has no gradient under XLA on processors.
    """

    def call(self, inputs):
        _, height, width, channels = inputs.shape
        rows = tf.broadcast_to(inputs[:, :, None, :, None], [tf.shape(inputs)[0], height, 2, width, 2, channels])
        return tf.reshape(rows, [-1, 2 * height, 2 * width, channels])

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, 2 * height, 2 * width, channels)


def _up(x, condition, filters, norm_act, double, name):
    """A residual block of the generator; its shortcut drops the channels that are too many."""
    hidden, shortcut = x.shape[-1] // 4, x

    def normalized(x, part):
        return ConditionalNormAct(norm_act(affine=False), name=f"{name}.norm{part}")([x, condition])

    x = _convolution(hidden, 1, f"{name}.conv0")(normalized(x, 0))
    x = normalized(x, 1)
    if double:
        x = Doubled(name=f"{name}.double")(x)
    x = _convolution(hidden, 3, f"{name}.conv1")(x)
    x = _convolution(hidden, 3, f"{name}.conv2")(normalized(x, 2))
    x = _convolution(filters, 1, f"{name}.conv3")(normalized(x, 3))
    shortcut = shortcut[:, :, :, :filters]
    if double:
        shortcut = Doubled(name=f"{name}.shortcut")(shortcut)
    return tf.keras.layers.Add(name=f"{name}.add")([x, shortcut])


def _down(x, filters, halve, name):
    """A residual block of the discriminator; its shortcut makes the channels that are missing."""
    hidden, shortcut = filters // 4, x
    for part, (size, kernel) in enumerate(((hidden, 1), (hidden, 3), (hidden, 3))):
        x = _convolution(size, kernel, f"{name}.conv{part}")(tf.keras.layers.ReLU()(x))
    x = tf.keras.layers.ReLU()(x)
    if halve:
        x, shortcut = (tf.keras.layers.AveragePooling2D(2)(map_) for map_ in (x, shortcut))
    x = _convolution(filters, 1, f"{name}.conv3")(x)
    missing = filters - shortcut.shape[-1]
    if missing:
        more = _convolution(missing, 1, f"{name}.shortcut")(shortcut)
        shortcut = tf.keras.layers.Concatenate(name=f"{name}.concatenate")([shortcut, more])
    return tf.keras.layers.Add(name=f"{name}.add")([x, shortcut])


def _convolution(filters, kernel, name, **options):
    layer = tf.keras.layers.Conv2D(
        filters, kernel, padding="same", kernel_initializer=_orthogonal(), name=name, **options
    )
    return spectral(layer)


def _dense(units, name):
    return spectral(tf.keras.layers.Dense(units, kernel_initializer=_orthogonal(), name=name))


def _orthogonal():
    return tf.keras.initializers.Orthogonal()


def _known(resolution):
    if resolution not in GENERATOR:
        known = ", ".join(map(str, GENERATOR))
        raise Mistake(f"resolution must be one of {known} pixels. Received resolution={resolution}.")
    return resolution


def _channels(resolution, width, multiples):
    channels = [round(CHANNELS * width * multiple) for multiple in multiples]
    if channels != [CHANNELS * width * multiple for multiple in multiples] or min(channels) < 4 or min(channels) % 4:
        raise Mistake(
            f"width must make multiples of 4 channels. Received width={width}, which at {resolution} pixels "
            f"makes {channels}. "
            f"Pass a multiple of 1/32."
        )
    return channels
