"""The proxy task: one candidate trained in one anchor, on images that fit into memory."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Callable

import numpy as np
import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.trial.anchors import Anchor, NormAct


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of a classification task, in memory.

    Attributes:
      train, train_labels: [N, H, W, 3] float32, normalised, and [N] integers.
      held_out, held_out_labels: the same kind of arrays, on which accuracy is measured.
      num_classes: number of classes, K.
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
      crop: side of the random training crop, in pixels; accuracy is measured on whole images.
      flip: whether half of the crops are flipped horizontally.
      rate: learning rate of the first step.
      schedule: "constant", or "cosine" for a decay to 0.
      momentum: Nesterov momentum.
      weight_decay: factor of half the squared norm of the kernels of convolutions and the dense layer.
      held_out_batch: images per batch where accuracy is measured.

    Raises:
      Mistake: for an unknown schedule.

    Source: EvoNorm paper, section 4 and the appendix of its first version: the B series with 2,000 steps and a
      constant rate, the S series with 5,000 steps and cosine. The paper does not say whether crops are flipped.
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
            raise Mistake(
                f"schedule must be 'constant' or 'cosine'. Received schedule={self.schedule!r}. "
                "The paper's S series takes 'cosine'."
            )

    def rate_at(self, step: int) -> float:
        """Returns the learning rate of a step; the first step is 0."""
        if self.schedule == "constant":
            return self.rate
        return self.rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class Run:
    """One candidate in one anchor: its weights, and training that can be interrupted and resumed.

    Args:
      anchor: the architecture.
      norm_act: callable returning new layers.
      images: images to learn from and to measure on.
      training: hyperparameters of the training.
      seed: seed of the initial weights, the order of images, crops and flips.

    Keras keeps some memory of every model (about 6 MB each); restart a process that tries hundreds of candidates from
    time to time.
    """

    def __init__(
        self,
        anchor: Anchor,
        norm_act: NormAct,
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
        self._measured: tuple[int, float] = (-1, 0.0)  # step and accuracy of the last measurement
        self._rng = np.random.default_rng([seed, 1])
        self._order = np.zeros(0, int)
        self._optimizer = tf.keras.optimizers.SGD(training.rate, training.momentum, nesterov=True)
        self._optimizer.build(self.model.trainable_weights)

    # One concrete function each, traced at the first call: retracing for every candidate is intended and needs no
    # warning.

    @functools.cached_property
    def _step(self) -> Callable:
        side, batch = self.training.crop, self.training.batch
        signature = [tf.TensorSpec([batch, side, side, 3]), tf.TensorSpec([batch], tf.int32), tf.TensorSpec([])]
        return tf.function(self._train_step, input_signature=signature, autograph=False).get_concrete_function()

    @functools.cached_property
    def _predict(self) -> Callable:
        signature = [tf.TensorSpec([None, None, None, 3])]
        predict = tf.function(lambda x: self.model(x, training=False), input_signature=signature, autograph=False)
        return predict.get_concrete_function()

    @property
    def position(self) -> tuple[np.ndarray, dict]:
        """Position in the stream of images; may be set to an earlier value."""
        return self._order, self._rng.bit_generator.state

    @position.setter
    def position(self, position: tuple[np.ndarray, dict]) -> None:
        self._order, self._rng.bit_generator.state = position

    def next_batch(self, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Draws images without replacement until all were seen.

        Args:
          size: number of images, b; `training.batch` by default.

        Returns:
          Crops [b, crop, crop, 3] float32 and labels [b] int32.
        """
        size = size or self.training.batch
        while len(self._order) < size:
            self._order = np.concatenate([self._order, self._rng.permutation(len(self.images.train))])
        chosen, self._order = self._order[:size], self._order[size:]
        side, train = self.training.crop, self.images.train
        tops = self._rng.integers(train.shape[1] - side + 1, size=size)
        lefts = self._rng.integers(train.shape[2] - side + 1, size=size)
        crops = np.stack([train[i, t : t + side, c : c + side] for i, t, c in zip(chosen, tops, lefts)])
        if self.training.flip:
            flipped = self._rng.random(size) < 0.5
            crops[flipped] = crops[flipped, :, ::-1]
        return crops.astype(np.float32, copy=False), self.images.train_labels[chosen].astype(np.int32)

    def untrained_spread(self) -> tuple[float, float]:
        """Runs the untrained network eagerly on a batch of its own; moving statistics stay as they were.

        Returns:
          The loss, and the smallest standard deviation of a logit over the batch; NaN for logits that are not finite.
        """
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
        """Trains up to a step.

        Args:
          until: steps counted from the start of training; `training.steps` by default.

        Returns:
          False if training stopped at a loss that is not finite.
        """
        for step in range(self.done, min(until or self.training.steps, self.training.steps)):
            images, labels = self.next_batch()
            self.losses.append(float(self._step(*map(tf.constant, (images, labels, self.training.rate_at(step))))))
            self.done += 1
            if not math.isfinite(self.losses[-1]):
                return False
        return True

    def accuracy(self) -> float:
        """Returns the accuracy on the held-out images, in [0, 1]; logits that are not finite count as wrong.

        Until the next step of training it is not measured again.
        """
        if self._measured[0] == self.done:
            return self._measured[1]
        size, images, right = self.training.held_out_batch, self.images, 0
        for start in range(0, len(images.held_out), size):
            logits = self._predict(tf.constant(images.held_out[start : start + size], tf.float32)).numpy()
            found = logits.argmax(-1) == images.held_out_labels[start : start + size]
            right += int((found & np.isfinite(logits).all(-1)).sum())
        self._measured = self.done, right / len(images.held_out)
        return self._measured[1]

    def _train_step(self, images: tf.Tensor, labels: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(cross_entropy(labels, self.model(images, training=True)))
        variables = self.model.trainable_weights
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        decayed = {id(kernel) for kernel in self.kernels}
        decay = self.training.weight_decay
        gradients = [g + decay * w if id(w) in decayed else g for g, w in zip(gradients, variables)]
        self._optimizer.learning_rate.assign(rate)
        self._optimizer.apply_gradients(zip(gradients, variables))
        return loss


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the cross-entropy [B] float32 of labels [B] and logits [B, K]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
