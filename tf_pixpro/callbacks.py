"""What the programs do while they train, as callbacks of `PixPro.fit`: probe, pictures, best encoder, stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_pixpro.checkpoints import save_backbone
from tf_pixpro.pretext.pictures import PictureWriter
from tf_pixpro.pretext.probe import effective_rank, feature_std, nearest_neighbour_accuracy, pooled_features
from tf_pixpro.pretext.stop import non_finite


class FeatureProbe(tf.keras.callbacks.Callback):
    """Evaluates the frozen encoder on labelled images, before the first epoch and after epochs.

    Its numbers are put into the epoch's logs, where `History`, TensorBoard and the callbacks behind it find them:

    - NAME: `accuracy` of the queries' labels, from features averaged over the cells of the model's level;
    - `feature_std`: standard deviation of the bank's unit features times sqrt(C), 1 spread, 0 collapsed to one point;
    - `feature_rank`: their effective rank, 1 collapsed to a line, at most C.

    Args:
      bank: finite dataset of batches {'image': [b, H, W, 3] float32 normalised, 'label': [b] integer} to learn from;
        `tf_pixpro.data.labelled_dataset` makes it.
      queries: the same for the images to classify.
      accuracy: (bank features, bank labels, query features, query labels) -> a number; see `tf_pixpro.pretext.probe`.
      name: what the accuracy is called.
      every: epochs between two evaluations.

    Attributes:
      before: the numbers of the encoder that `fit` began with.

    Raises:
      Mistake: if every is not positive.
    """

    def __init__(
        self,
        bank: tf.data.Dataset,
        queries: tf.data.Dataset,
        accuracy: Callable[..., float] = nearest_neighbour_accuracy,
        name: str = "knn_accuracy",
        every: int = 1,
    ):
        super().__init__()
        self._bank, self._queries, self._accuracy = bank, queries, accuracy
        self._name, self._every = name, _positive("every", every)
        self.before: dict[str, float] = {}

    def on_train_begin(self, logs: Optional[dict] = None) -> None:
        model = self.model
        self._features = tf.function(lambda images: pooled_features(model, images), reduce_retracing=True)
        self.before = self._numbers()

    def on_epoch_end(self, epoch: int, logs: Optional[dict] = None) -> None:
        if (epoch + 1) % self._every == 0 and logs is not None:
            logs.update(self._numbers())

    def _numbers(self):
        bank, queries = self._labelled(self._bank), self._labelled(self._queries)
        return {
            self._name: float(self._accuracy(*bank, *queries)),
            "feature_std": feature_std(bank[0]),
            "feature_rank": effective_rank(bank[0]),
        }

    def _labelled(self, dataset):
        parts = [(self._features(batch["image"]).numpy(), np.asarray(batch["label"])) for batch in dataset]
        if not parts:
            raise Mistake("a probe needs labelled images. Received an empty dataset. Pass one with batches.")
        return tuple(np.concatenate(part) for part in zip(*parts))


class BestBackbone(tf.keras.callbacks.Callback):
    """Writes the encoder with `save_backbone` after each epoch that improves a number of the logs.

    Args:
      path: as in `save_backbone`: a prefix, or a name that ends in `.safetensors` or `.weights.h5`.
      monitor: name in the epoch's logs. A callback that adds it stands before this one. An epoch without it counts
        for nothing.
      mode: 'max' if more is better, 'min' if less is.
      initial_value: what must be bettered first, such as the best of the run that is resumed.

    Attributes:
      best: the best value so far, None before the first.

    Raises:
      Mistake: if mode is neither; at the end of `fit`, if no epoch had the number.
    """

    def __init__(
        self, path: str, monitor: str = "knn_accuracy", mode: str = "max", initial_value: Optional[float] = None
    ):
        super().__init__()
        if mode not in ("max", "min"):
            raise Mistake(f"mode must be 'max' or 'min'. Received mode={mode!r}.")
        self._path, self._monitor, self._sign = path, monitor, 1 if mode == "max" else -1
        self._seen, self._names = False, set[str]()
        self.best = initial_value

    def on_epoch_end(self, epoch: int, logs: Optional[dict] = None) -> None:
        self._names |= set(logs or {})
        if not logs or self._monitor not in logs:
            return
        self._seen, value = True, float(logs[self._monitor])
        if np.isfinite(value) and (self.best is None or self._sign * value > self._sign * self.best):
            self.best = value
            save_backbone(self.model.encoder, self._path)

    def on_train_end(self, logs: Optional[dict] = None) -> None:
        if self._names and not self._seen:
            raise Mistake(
                f"monitor must be one of the logs {', '.join(sorted(self._names))}. Received {self._monitor!r}. "
                "Put the callback that adds it first."
            )


class StopAtNonFinite(tf.keras.callbacks.Callback):
    """Ends `fit` with FloatingPointError after the step whose loss or gradient is no longer finite.

    Where several steps are executed at once it ends after them, and always before a callback of the epoch's end saves
    anything.

    Keras' `TerminateOnNaN` ends `fit` as if it were complete, and the callbacks of the epoch's end save the damage.
    Where the optimizer scales the loss, gradients may overflow: the step is skipped, and the loss alone decides.
    """

    def on_train_batch_end(self, batch: int, logs: Optional[Mapping[str, Any]] = None) -> None:
        scaled = hasattr(self.model.optimizer, "inner_optimizer")
        names = ("loss",) if scaled else ("loss", "gradient_norm")
        values = [value for name, value in (logs or {}).items() if name in names]
        if not all(np.isfinite(np.asarray(value)).all() for value in values):
            raise non_finite("by", int(self.model.optimizer.iterations))


class Pictures(tf.keras.callbacks.Callback):
    """Writes correspondences and similarity maps of a few images as TensorBoard images; it needs matplotlib.

    Args:
      views: a batch {'view1', 'view2', 'box1', 'box2'} of the images to draw.
      folder: where the summaries go.
      every: epochs between two drawings.

    Raises:
      Mistake: if every is not positive.
    """

    def __init__(self, views: Mapping[str, tf.Tensor], folder: str, every: int = 1):
        super().__init__()
        self._views, self._folder, self._every = views, folder, _positive("every", every)

    def on_train_begin(self, logs: Optional[dict] = None) -> None:
        self._writer = PictureWriter(self.model, self._views, self._folder)

    def on_epoch_end(self, epoch: int, logs: Optional[dict] = None) -> None:
        if (epoch + 1) % self._every == 0:
            self._writer.write(int(self.model.optimizer.iterations))


def _positive(name, value):
    if value < 1:
        raise Mistake(f"{name} must be positive. Received {name}={value}.")
    return value
