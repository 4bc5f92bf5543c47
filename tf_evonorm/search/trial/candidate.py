"""The trial of one candidate: the precheck, the rejection tests, then training to the end and the scores."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import gc
import time
from collections.abc import Iterable, Iterator
from typing import Callable, Optional

import numpy as np
import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.space.graph import Graph
from tf_evonorm.search.space.graph_layer import layer_from_graph
from tf_evonorm.search.trial import rejection
from tf_evonorm.search.trial.anchors import Anchor, NormAct
from tf_evonorm.search.trial.outcomes import Outcome
from tf_evonorm.search.trial.proxy_task import Images, Run, Training
from tf_evonorm.search.trial.rejection import LearningCurve, Quality, Stability, Verdict


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Tries a graph and returns the accuracy in each anchor, or the reason of its rejection, as an `Outcome`.

    The tests that reject most in the least time come first: one eager pass; the quality test, whose steps are the
    first ones of the training anyway; the stability test, each step of which costs three training steps; then the
    rest of the training.

    Args:
      images, training: as in `Run`.
      anchors: in the order in which they are tried; put the fastest first.
      quality, stability: the paper's tests; None skips one.
      precheck: whether `rejection.precheck` runs first, which the paper does not have.
      layer: keyword arguments of `GraphLayer`.
      seed: seed of all runs.
      curve: a test of the training loss before that of quality, which the paper does not have; None skips it.

    Raises:
      Mistake: if the training crops are larger than the images.

    Source: EvoNorm paper, section 4, which does not say which of its tests runs first.
    """

    images: Images
    anchors: tuple[Anchor, ...]
    training: Training
    quality: Optional[Quality] = None
    stability: Optional[Stability] = None
    precheck: bool = True
    layer: dict = dataclasses.field(default_factory=dict)
    seed: int = 0
    curve: Optional[LearningCurve] = None

    def __post_init__(self):
        side, crop = min(self.images.train.shape[1:3]), self.training.crop
        if crop > side:
            raise Mistake(
                f"training.crop must fit into the images. Received crop={crop} for images of {side} pixels. "
                "Lower the crop or take larger images."
            )

    def __call__(self, graph: Graph) -> Outcome:
        seconds: collections.defaultdict = collections.defaultdict(float)
        numbers: dict = {}

        @contextlib.contextmanager
        def clock(phase: str) -> Iterator[None]:
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

    def _scores(self, graph: Graph, clock: Callable, numbers: dict) -> tuple[Optional[tuple], str]:
        """Returns (scores, "") or (None, the reason of the rejection); adds what was measured to `numbers`."""
        norm_act = layer_from_graph(graph, **self.layer)
        runs: list[Run] = []
        try:
            return self._tried(norm_act, clock, numbers, runs)
        finally:
            curves = {f"{run.anchor.name} losses": rejection.smoothed(run.losses) for run in runs if run.losses}
            numbers.update({name: [round(loss, 4) for loss in losses] for name, losses in curves.items()})

    def _tried(self, norm_act: NormAct, clock: Callable, numbers: dict, runs: list[Run]) -> tuple[Optional[tuple], str]:
        """As `_scores`; adds the trainings to `runs`."""
        initial: list[list[np.ndarray]] = []  # weights of each run
        for anchor in self.anchors:
            for name, test in self._tests(anchor, norm_act, clock, runs, initial):
                verdict = test()
                numbers.update({f"{anchor.name} {name} {key}": value for key, value in verdict.numbers.items()})
                if not verdict.ok:
                    return None, verdict.reason
        for run, weights in zip(runs, initial):
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

    def _tests(
        self, anchor: Anchor, norm_act: NormAct, clock: Callable, runs: list, initial: list
    ) -> list[tuple[str, Callable[[], Verdict]]]:
        """Returns (name, test) in order; the first one builds the network, the second one traces its training step."""

        def build() -> Verdict:
            with clock("building"):
                runs.append(Run(anchor, norm_act, self.images, self.training, self.seed))
                initial.append(runs[-1].model.get_weights())
            if not self.precheck:
                return Verdict(True)
            with clock("precheck"):
                return rejection.precheck(runs[-1])

        def trained(name: str, test: Callable[[Run], Verdict]) -> Verdict:
            with clock("tracing"):
                runs[-1].train(1)
            with clock(name):
                return test(runs[-1])

        tests: list[tuple[str, Callable[[], Verdict]]] = [("precheck", build)]
        for name, test in (("curve", self.curve), ("quality", self.quality)):
            if test:
                tests.append((name, functools.partial(trained, name, test)))
        return tests


def repeated(graph: Graph, candidate: Candidate, seeds: Iterable[int]) -> np.ndarray:
    """Trains a layer with several seeds and without any test.

    Args:
      graph: the layer.
      candidate: anchors, images and training; its seed and tests are not used.
      seeds: for each one there is one training per anchor.

    Returns:
      Accuracy [number of seeds, number of anchors]; NaN where training ended with a loss that is not finite.
    """
    rows = []
    for seed in seeds:
        outcome = dataclasses.replace(candidate, quality=None, stability=None, curve=None, precheck=False, seed=seed)(
            graph
        )
        rows.append(outcome.scores or [np.nan] * len(candidate.anchors))
    return np.array(rows)
