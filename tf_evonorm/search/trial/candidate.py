"""The way of one candidate: a first look in each anchor, quality, stability, and then the scores."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gc
import time
from collections.abc import Iterable
from typing import Optional

import numpy as np
import tensorflow as tf

from tf_evonorm.search.space.graph import Graph
from tf_evonorm.search.space.graph_layer import layer_from_graph
from tf_evonorm.search.trial import rejection
from tf_evonorm.search.trial.outcomes import Outcome
from tf_evonorm.search.trial.proxy_task import Anchor, Images, Run, Training
from tf_evonorm.search.trial.rejection import Quality, Stability, Verdict


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Tries graphs: called with a `Graph` it returns an `Outcome`, the accuracy in each anchor or why it was rejected.

    What rejects most for least time comes first: one eager pass, then the steps of the quality test, which are the first steps of the
    training anyway, then the stability test, which costs three training steps for each of its own, then the rest of the training.

    Args:
      images, training: see there.
      anchors: in the order in which they are tried; the fastest should come first.
      quality, stability: the paper's tests; None leaves one out.
      look: whether `rejection.first_look` comes first, which the paper does not have.
      layer: keyword arguments of `GraphLayer`.
      seed: of all runs.

    Raises:
      ValueError: crops larger than the images.

    Source: EvoNorm paper, section 4. Which of its tests goes first is not said.
    """

    images: Images
    anchors: tuple[Anchor, ...]
    training: Training
    quality: Optional[Quality] = None
    stability: Optional[Stability] = None
    look: bool = True
    layer: dict = dataclasses.field(default_factory=dict)
    seed: int = 0

    def __post_init__(self):
        side, crop = min(self.images.train.shape[1:3]), self.training.crop
        if crop > side:
            raise ValueError(
                f"training.crop must fit into the images. Received crop={crop} for images of {side} pixels."
            )

    def __call__(self, graph: Graph) -> Outcome:
        seconds: collections.Counter = collections.Counter()
        numbers: dict = {}

        @contextlib.contextmanager
        def clock(phase):
            start = time.perf_counter()
            try:
                yield
            finally:
                seconds[phase] = round(seconds[phase] + time.perf_counter() - start, 3)

        try:
            scores, reason = self._scores(graph, clock, numbers)
        finally:
            with clock("clearing"):
                tf.keras.backend.clear_session()
                gc.collect()
        return Outcome(scores, reason, numbers, dict(seconds))

    def _scores(self, graph, clock, numbers):
        norm_act = layer_from_graph(graph, **self.layer)
        runs, first = [], []
        for anchor in self.anchors:
            for name, test in self._tests(anchor, norm_act, clock, runs, first):
                verdict = test()
                numbers.update({f"{anchor.name} {name} {key}": value for key, value in verdict.numbers.items()})
                if not verdict.ok:
                    return None, verdict.reason
        for run, weights in zip(runs, first):
            if self.stability and (not self.stability.anchors or run.anchor.name in self.stability.anchors):
                with clock("stability"):
                    verdict = rejection.restored(run, weights, self.stability)
                numbers.update({f"{run.anchor.name} stability {key}": value for key, value in verdict.numbers.items()})
                if not verdict.ok:
                    return None, verdict.reason
        scores = []
        for run in runs:
            with clock("training"):
                if not run.train():
                    return None, rejection.NOT_FINITE
            with clock("accuracy"):
                scores.append(run.accuracy())
        return tuple(scores), ""

    def _tests(self, anchor, norm_act, clock, runs, first):
        """(name, test) in order; building comes with the first, tracing before the second."""

        def build():
            with clock("building"):
                runs.append(Run(anchor, norm_act, self.images, self.training, self.seed))
                first.append(runs[-1].model.get_weights())
            if not self.look:
                return Verdict(True)
            with clock("first look"):
                return rejection.first_look(runs[-1])

        def quality():
            with clock("tracing"):
                runs[-1].train(1)
            with clock("quality"):
                return self.quality(runs[-1])

        return [("look", build)] + ([("quality", quality)] if self.quality else [])


def repeated(graph: Graph, candidate: Candidate, seeds: Iterable[int]) -> np.ndarray:
    """Trains a layer several times without any test.

    Args:
      graph: the layer.
      candidate: how; its seed and tests are not used.
      seeds: one training in each anchor for each.

    Returns:
      Accuracy [number of seeds, number of anchors]; NaN where training ended with a loss that is not finite.
    """
    rows = []
    for seed in seeds:
        outcome = dataclasses.replace(candidate, quality=None, stability=None, look=False, seed=seed)(graph)
        rows.append(outcome.scores or [np.nan] * len(candidate.anchors))
    return np.array(rows)
