"""Fréchet distance and Inception Score of generated images, for any feature network and streams of any length."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

import numpy as np
import tensorflow as tf

from tf_evonorm.mistakes import Mistake


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A network that provides the features and class probabilities of images, and the names of the metrics.

    Attributes:
      make: () -> model, images [b, H, W, 3] float32 in [-1, 1] -> (features [b, D], class probabilities [b, K]), both
        float32.
      distance: name of the Fréchet distance of these features; "fid" only with Keras' InceptionV3.
      score: name of the Inception Score of these probabilities.
    """

    make: Callable[[], Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]
    distance: str
    score: str


def inception_network(weights: str = "imagenet") -> FeatureNetwork:
    """Returns Keras' InceptionV3 with ImageNet's classes, for `fid` and `inception_score`.

    Args:
      weights: path of its weights, or "imagenet", which Keras downloads.

    Source: Heusel et al. 2017 use the Inception of 2015, whose weights differ from Keras'; values are close but not
      equal to theirs.
    """

    def make() -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        network = tf.keras.applications.InceptionV3(weights=weights)
        network = tf.keras.Model(network.inputs, [network.layers[-2].output, network.output])

        def judge(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pooled, probabilities = network(tf.image.resize(images, [299, 299]), training=False)
            return tf.cast(pooled, tf.float32), tf.cast(probabilities, tf.float32)

        return judge

    return FeatureNetwork(make, "fid", "inception_score")


class Moments:
    """Streaming mean and covariance of rows; memory does not depend on their number.

    Attributes:
      count: number of rows, n.
      mean: [D] float64.
      covariance: [D, D] float64, divided by n - 1.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self._scatter: Any = 0.0

    def update(self, rows: np.ndarray) -> None:
        """Adds rows [b, D]."""
        rows = np.asarray(rows, np.float64)
        if not len(rows):
            return
        mean, count = rows.mean(axis=0), self.count + len(rows)
        shift = mean - self.mean
        spread = rows - mean
        self._scatter = self._scatter + spread.T @ spread + np.outer(shift, shift) * (self.count * len(rows) / count)
        self.mean = self.mean + shift * (len(rows) / count)
        self.count = count

    @property
    def covariance(self) -> np.ndarray:
        if self.count < 2:
            raise Mistake(f"a covariance needs two images. Received {self.count}. Evaluate on more images.")
        return self._scatter / (self.count - 1)


class InceptionScore:
    """Streaming Inception Score: exp of the mean KL divergence of class probabilities from their mean.

    Args:
      splits: number of parts to which rows are dealt in turn; the score is the mean over the parts.

    Source: Salimans et al. 2016. There the parts are contiguous blocks, which is equivalent for identically distributed
      rows.
    """

    def __init__(self, splits: int = 10):
        if splits < 1:
            raise Mistake(f"splits must be positive. Received splits={splits}. The usual number is 10.")
        self._splits, self._seen = splits, 0
        self._sums: Any = None
        self._counts = np.zeros(splits)
        self._negative_entropies = np.zeros(splits)

    def update(self, rows: np.ndarray) -> None:
        """Adds class probabilities [b, K]."""
        rows = np.asarray(rows, np.float64)
        part = (self._seen + np.arange(len(rows))) % self._splits
        if self._sums is None:
            self._sums = np.zeros([self._splits, rows.shape[1]])
        np.add.at(self._sums, part, rows)
        np.add.at(self._negative_entropies, part, _negative_entropy(rows))
        np.add.at(self._counts, part, 1)
        self._seen += len(rows)

    def result(self) -> tuple[float, float]:
        """Returns mean and standard deviation over the parts."""
        if self._seen < self._splits:
            raise Mistake(f"each of {self._splits} parts needs an image. Received {self._seen}. Lower splits.")
        means = self._sums / self._counts[:, None]
        scores = np.exp(self._negative_entropies / self._counts - _negative_entropy(means))
        return float(scores.mean()), float(scores.std())


def frechet_distance(first: Moments, second: Moments) -> float:
    """Returns the squared Fréchet distance of two normal distributions.

    |m1 - m2|**2 + trace(C1 + C2 - 2 (C1 C2)**(1/2))

    Source: Heusel et al. 2017. The trace of the square root is computed from the eigenvalues of the symmetric matrix
      C1**(1/2) C2 C1**(1/2), which are those of C1 C2, so that the result stays real for rank-deficient covariances.
    """
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ second.covariance @ root)
    trace = np.trace(first.covariance) + np.trace(second.covariance) - 2 * np.sqrt(np.maximum(inner, 0)).sum()
    return float(np.sum((first.mean - second.mean) ** 2) + trace)


def _negative_entropy(rows: np.ndarray) -> np.ndarray:
    return np.sum(rows * np.log(np.maximum(rows, 1e-16)), axis=-1)
