"""How good generated images are: Fréchet distance and Inception Score by any feature network, from streams of any length."""

from __future__ import annotations

import dataclasses
import os
from typing import Callable

import numpy as np
import tensorflow as tf

from experiments.launch import session as sessions
from tf_pixpro.views.augment import normalised


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A network whose features and classes images are judged by, and the names of what it measures.

    Attributes:
      make: () -> model, images [b, H, W, 3] float32 in -1..1 -> (features [b, D], class probabilities [b, K]) float32.
      distance: name of the Fréchet distance of these features; "fid" only with Keras' InceptionV3.
      score: name of the Inception Score of these probabilities.
    """

    make: Callable
    distance: str
    score: str


def classifier_network(workdir: str, name: str = "") -> FeatureNetwork:
    """The classifier that a run of `experiments.classify` has left, its pooled features and probabilities.

    Args:
      workdir: the run's folder, or its `best` below it.
      name: what the scores are called after; by default the backbone's.

    Raises:
      FileNotFoundError: if the folder is not that of a run whose classifier is kept.
    """
    from experiments import classify  # Model Garden's vision part takes ten seconds to import

    folder = workdir.rstrip("/")
    homes = (home for home in (folder, os.path.dirname(folder)) if tf.io.gfile.exists(f"{home}/config.json"))
    config = sessions.recorded(next(homes, folder))
    size = tuple(config.evaluation.get("size") or config.views.size)

    def make():
        classifier, _ = classify.restored(config, folder)
        features = tf.keras.Model(classifier.inputs, [classifier.layers[-1].input, classifier.output])

        def judge(images):
            views = tf.image.resize(normalised((images + 1) * 127.5), size)
            pooled, logits = features(views, training=False)
            return tf.cast(pooled, tf.float32), tf.nn.softmax(tf.cast(logits, tf.float32))

        return judge

    name = name or config.backbone.get("name", "classifier")
    return FeatureNetwork(make, f"frechet_distance_{name}", f"inception_score_{name}")


def inception_network(weights: str = "imagenet") -> FeatureNetwork:
    """Keras' InceptionV3 with ImageNet's classes: `fid` and `inception_score`.

    Args:
      weights: path of its weights, or "imagenet", which Keras downloads.

    Source: Heusel et al. 2017 use the Inception of 2015, whose weights differ from Keras': such numbers are near, not equal, to theirs.
    """

    def make():
        network = tf.keras.applications.InceptionV3(weights=weights)
        network = tf.keras.Model(network.inputs, [network.layers[-2].output, network.output])

        def judge(images):
            return [
                tf.cast(value, tf.float32) for value in network(tf.image.resize(images, [299, 299]), training=False)
            ]

        return judge

    return FeatureNetwork(make, "fid", "inception_score")


class Moments:
    """Mean and covariance of rows that come in batches; as much memory for 50,000 of them as for 1,000.

    `update` takes [b, D]. `mean` is [D] and `covariance` [D, D], float64, divided by n - 1.
    """

    def __init__(self):
        self.count, self.mean, self._scatter = 0, 0.0, 0.0

    def update(self, rows):
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
    def covariance(self):
        if self.count < 2:
            raise ValueError(f"a covariance needs two rows. Received {self.count}. Evaluate on more images.")
        return self._scatter / (self.count - 1)


class InceptionScore:
    """exp of the mean divergence of class probabilities from their mean, over rows that come in batches.

    Args:
      splits: rows are dealt to so many parts in turn; the result is the mean over them.

    `update` takes [b, K]; `result` returns (mean, standard deviation over the parts).

    Source: Salimans et al. 2016. There the parts are blocks of neighbours; for rows that are drawn alike that is the same.
    """

    def __init__(self, splits: int = 10):
        if splits < 1:
            raise ValueError(f"splits must be positive. Received splits={splits}. The usual number is 10.")
        self._splits, self._seen = splits, 0
        self._sums = self._counts = self._negative_entropies = None

    def update(self, rows):
        rows = np.asarray(rows, np.float64)
        part = (self._seen + np.arange(len(rows))) % self._splits
        if self._sums is None:
            self._sums = np.zeros([self._splits, rows.shape[1]])
            self._counts, self._negative_entropies = np.zeros(self._splits), np.zeros(self._splits)
        np.add.at(self._sums, part, rows)
        np.add.at(self._negative_entropies, part, _negative_entropy(rows))
        np.add.at(self._counts, part, 1)
        self._seen += len(rows)

    def result(self) -> tuple[float, float]:
        if self._seen < self._splits:
            raise ValueError(f"each of {self._splits} parts needs an image. Received {self._seen}. Lower splits.")
        means = self._sums / self._counts[:, None]
        scores = np.exp(self._negative_entropies / self._counts - _negative_entropy(means))
        return float(scores.mean()), float(scores.std())


def frechet_distance(first: Moments, second: Moments) -> float:
    """|m1 - m2|**2 + trace(C1 + C2 - 2 (C1 C2)**(1/2)), the squared distance of the normal distributions with these moments.

    Source: Heusel et al. 2017. The trace of the root is taken from the eigenvalues of the symmetric C1**(1/2) C2 C1**(1/2), which
      has those of C1 C2, so that nothing turns complex where the covariances have no full rank.
    """
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ second.covariance @ root)
    trace = np.trace(first.covariance) + np.trace(second.covariance) - 2 * np.sqrt(np.maximum(inner, 0)).sum()
    return float(np.sum((first.mean - second.mean) ** 2) + trace)


def _negative_entropy(rows):
    return np.sum(rows * np.log(np.maximum(rows, 1e-16)), axis=-1)
