"""Anchors, the small networks in which a candidate is tried, and how one is trained on images that fit into memory."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Callable, NamedTuple

import numpy as np
import tensorflow as tf

from tf_evonorm import backbones
from tf_evonorm.backbones.inverted_residual import Stage, inverted_residual_network


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of a classification task, in memory.

    Attributes:
      train, train_labels: [N, H, W, 3] float32, normalised, and [N] integers.
      held_out, held_out_labels: the same, to measure accuracy on.
      num_classes: K.
    """

    train: np.ndarray
    train_labels: np.ndarray
    held_out: np.ndarray
    held_out_labels: np.ndarray
    num_classes: int


@dataclasses.dataclass(frozen=True)
class Training:
    """How an anchor is trained.

    Attributes:
      steps: gradient steps.
      batch: images per step.
      crop: side of the random crop that training sees, pixels; accuracy is measured on whole images.
      flip: whether half of the crops are mirrored.
      rate, schedule: learning rate, "constant" or "cosine" down to 0.
      momentum: Nesterov's.
      weight_decay: times half the squared norm of the kernels of convolutions and the dense layer.
      held_out_batch: images at once where accuracy is measured.

    Raises:
      ValueError: an unknown schedule.

    Source: EvoNorm paper, section 4 and its first version's appendix: B with 2,000 steps and a constant rate, S with 5,000 and
      cosine. Whether crops are mirrored is not said.
    """

    steps: int = 2000
    batch: int = 128
    crop: int = 24
    flip: bool = True
    rate: float = 0.1
    schedule: str = "constant"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    held_out_batch: int = 512

    def __post_init__(self):
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule must be 'constant' or 'cosine'. Received schedule={self.schedule!r}.")

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, the first is 0."""
        if self.schedule == "constant":
            return self.rate
        return self.rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class Anchor(NamedTuple):
    """An architecture: its name, and norm_act -> backbone [B, H, W, 3] -> dict of levels, any H and W."""

    name: str
    backbone: Callable


def paper_anchors(
    resnet_width: float = 0.25, mobilenet_width: float = 0.5, efficientnet_width: float = 0.5
) -> tuple[Anchor, ...]:
    """Pre-activation ResNet-50, MobileNetV2 and EfficientNet-B0, the first two strides 1.

    Source: EvoNorm paper, section 4. The three widths are from memory of its appendix and could not be confirmed; stochastic depth
      is off.
    """
    return (
        Anchor("resnet", functools.partial(backbones.preactivation_resnet, 50, width=resnet_width, stem="small")),
        Anchor("mobilenet", functools.partial(backbones.mobilenetv2, width=mobilenet_width, stem="small")),
        Anchor(
            "efficientnet",
            functools.partial(_efficientnet, width=efficientnet_width, stem="small", stochastic_depth=0.0),
        ),
    )


def small_anchors(width: float = 1.0) -> tuple[Anchor, ...]:
    """Three networks of the same three kinds for a machine of two cores, of about 10 to 20 thousand weights.

    The ResNet has 3 basic blocks of 8, 16 and 32 channels; the mobile networks have 3 inverted residual blocks each, of 3x3
    windows, or of 5x5 with squeeze-and-excite.
    """
    narrow = [int(width * channels) for channels in (16, 24, 32, 64)]

    def mobile(norm_act, kernel, squeeze, name):
        stages = [
            Stage(1, narrow[0], 1, 1, kernel),
            Stage(3, narrow[1], 2, 2, kernel),
            Stage(3, narrow[2], 1, 2, kernel, "4"),
        ]
        return inverted_residual_network(
            stages,
            norm_act=norm_act,
            input_size=(None, None, 3),
            stem="imagenet",
            stem_channels=narrow[0],
            head_channels=narrow[3],
            squeeze=squeeze,
            squeeze_activation="swish",
            name=name,
        )

    def resnet(norm_act):
        return backbones.preactivation_resnet(18, norm_act, blocks=(1, 1, 1), width=width / 8, stem="small")

    return (
        Anchor("resnet", resnet),
        Anchor("mobilenet", functools.partial(mobile, kernel=3, squeeze=0.0, name="mobilenet_small")),
        Anchor("efficientnet", functools.partial(mobile, kernel=5, squeeze=0.25, name="efficientnet_small")),
    )


def _efficientnet(norm_act, **settings):
    return backbones.efficientnet("b0", norm_act, **settings)


class Run:
    """One candidate in one anchor: weights, and training that can be stopped and gone on with.

    Args:
      anchor: the architecture.
      norm_act: callable returning fresh layers.
      images: what is learned.
      training: how.
      seed: of first weights, order of images, crops and flips.

    Nothing of it outlives the object but what Keras keeps of every model; a process that tries hundreds of candidates should be
    started again from time to time.
    """

    def __init__(
        self,
        anchor: Anchor,
        norm_act: Callable[..., tf.keras.layers.Layer],
        images: Images,
        training: Training,
        seed: int = 0,
    ):
        self.anchor, self.images, self.training = anchor, images, training
        tf.keras.utils.set_random_seed(seed)
        backbone = anchor.backbone(norm_act)
        levels = backbone.output
        x = tf.keras.layers.GlobalAveragePooling2D()(levels[max(levels)])
        logits = tf.keras.layers.Dense(
            images.num_classes, kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.01), name="logits"
        )(x)
        self.model = tf.keras.Model(backbone.input, logits)
        self.kernels = [
            weight
            for layer in self.model._flatten_layers()
            if isinstance(layer, (tf.keras.layers.Conv2D, tf.keras.layers.DepthwiseConv2D, tf.keras.layers.Dense))
            for weight in layer.trainable_weights
            if len(weight.shape) > 1
        ]
        self.done = 0
        self.losses: list[float] = []
        self._rng = np.random.default_rng([seed, 1])
        self._order = np.zeros(0, int)
        self._optimizer = tf.keras.optimizers.SGD(training.rate, training.momentum, nesterov=True)
        self._optimizer.build(self.model.trainable_weights)

    # One concrete program each, traced when first called: a new one for every candidate is meant, and needs no warning.

    @functools.cached_property
    def _step(self):
        side, batch = self.training.crop, self.training.batch
        signature = [tf.TensorSpec([batch, side, side, 3]), tf.TensorSpec([batch], tf.int32), tf.TensorSpec([])]
        return tf.function(self._train_step, input_signature=signature, autograph=False).get_concrete_function()

    @functools.cached_property
    def _predict(self):
        signature = [tf.TensorSpec([None, None, None, 3])]
        predict = tf.function(lambda x: self.model(x, training=False), input_signature=signature, autograph=False)
        return predict.get_concrete_function()

    @property
    def place(self) -> tuple:
        """Where in the images the next batch begins; may be set to what it was."""
        return self._order, self._rng.bit_generator.state

    @place.setter
    def place(self, place: tuple) -> None:
        self._order, self._rng.bit_generator.state = place

    def next_batch(self, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(crops [b, crop, crop, 3] float32, labels [b] int32) of images drawn without repetition until all were seen."""
        size = size or self.training.batch
        while len(self._order) < size:
            self._order = np.concatenate([self._order, self._rng.permutation(len(self.images.train))])
        chosen, self._order = self._order[:size], self._order[size:]
        side, train = self.training.crop, self.images.train
        tops = self._rng.integers(train.shape[1] - side + 1, size=size)
        lefts = self._rng.integers(train.shape[2] - side + 1, size=size)
        crops = np.stack([train[i, t : t + side, c : c + side] for i, t, c in zip(chosen, tops, lefts)])
        if self.training.flip:
            mirrored = self._rng.random(size) < 0.5
            crops[mirrored] = crops[mirrored, :, ::-1]
        return crops.astype(np.float32, copy=False), self.images.train_labels[chosen].astype(np.int32)

    def first_look(self) -> tuple[float, float]:
        """(loss, least standard deviation over the batch of any logit) of the untrained network on a batch of its own, eagerly."""
        rng, order = self._rng, self._order
        self._rng = np.random.default_rng([0, 2])
        images, labels = self.next_batch(min(32, self.training.batch))
        self._rng, self._order = rng, order
        kept = [(weight, weight.numpy()) for weight in self.model.non_trainable_weights]
        logits = self.model(images, training=True)
        for weight, value in kept:
            weight.assign(value)
        spread = tf.reduce_min(tf.math.reduce_std(logits, 0)) if np.isfinite(logits).all() else math.nan
        return float(tf.reduce_mean(cross_entropy(labels, logits))), float(spread)

    def train(self, until: int | None = None) -> bool:
        """Trains up to a number of steps, counted from the start; stops at a loss that is not finite and returns False then."""
        for step in range(self.done, min(until or self.training.steps, self.training.steps)):
            images, labels = self.next_batch()
            self.losses.append(float(self._step(*map(tf.constant, (images, labels, self.training.rate_at(step))))))
            self.done += 1
            if not math.isfinite(self.losses[-1]):
                return False
        return True

    def accuracy(self) -> float:
        """Share of the held-out images that get their own label; images whose logits are not finite do not."""
        size, images, right = self.training.held_out_batch, self.images, 0
        for start in range(0, len(images.held_out), size):
            logits = self._predict(tf.constant(images.held_out[start : start + size], tf.float32)).numpy()
            found = logits.argmax(-1) == images.held_out_labels[start : start + size]
            right += int((found & np.isfinite(logits).all(-1)).sum())
        return right / len(images.held_out)

    def _train_step(self, images, labels, rate):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(cross_entropy(labels, self.model(images, training=True)))
        variables = self.model.trainable_weights
        slopes = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        decayed = {id(kernel) for kernel in self.kernels}
        decay = self.training.weight_decay
        slopes = [g + decay * w if id(w) in decayed else g for g, w in zip(slopes, variables)]
        self._optimizer.learning_rate.assign(rate)
        self._optimizer.apply_gradients(zip(slopes, variables))
        return loss


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """[B] float32."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
