"""Cheap checks of a graph on fixed random inputs, before any training, and a fingerprint of its function."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Callable, Optional

import numpy as np

from tf_evonorm.search.space.graph import Graph, evaluate
from tf_evonorm.search.space.primitives import USUAL, Protection

SHAPE, GROUPS = (4, 4, 4, 16), 4


@dataclasses.dataclass(frozen=True)
class Checks:
    """Which graphs are skipped without a trial. Each check can be switched off; the paper has only the last one.

    Attributes:
      independent: the output does not depend on x.
      not_finite: the output is infinite or NaN for normally distributed inputs.
      constant: the output is one single value at v0 = 0, v1 = 1.
      flat: the output is the same at all spatial positions, so that a network of such layers sees no shapes.
      batch: a live node aggregates over the batch; for the S series.

    Source: `batch` is the EvoNorm paper's S series, decided on live nodes because the paper's graph of S0 has a dead
      batch node.
    """

    independent: bool = True
    not_finite: bool = True
    constant: bool = True
    flat: bool = True
    batch: bool = False

    def reason(self, graph: Graph, protection: Protection = USUAL) -> Optional[str]:
        """Returns the name of the first active check that a graph fails, or None if it passes all."""
        numbers = _numbers(graph, protection)
        for name, fails in _FAILS.items():
            if getattr(self, name) and fails(numbers):
                return name
        return None


def fingerprint(graph: Graph, protection: Protection = USUAL) -> str:
    """Returns a hash of the outputs of a graph, rounded to four digits, on fixed random x, v0 and v1.

    Two graphs with the same fingerprint train alike; their inference may differ where their batch nodes differ.

    Source: AutoML-Zero (Real et al. 2020), functional equivalence checking.
    """
    y = _numbers(graph, protection).random
    bits = (np.where(np.isnan(y), np.nan, y) + 0.0).astype(np.float32).view(np.uint32)
    return hashlib.sha256(((bits + (1 << 9)) >> 10).tobytes()).hexdigest()[:24]  # 13 bits of the fraction


class _Numbers:
    """Outputs of one graph on the fixed inputs, each computed at its first use."""

    def __init__(self, graph: Graph, protection: Protection):
        self.graph, self.protection = graph, protection

    def run(self, x: np.ndarray, v0: np.ndarray, v1: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return evaluate(self.graph, x, v0, v1, self.protection, GROUPS)

    @functools.cached_property
    def random(self) -> np.ndarray:
        x, _, v0, v1 = _inputs()
        return self.run(x, v0, v1)

    @functools.cached_property
    def elsewhere(self) -> np.ndarray:
        _, other, v0, v1 = _inputs()
        return self.run(other, v0, v1)

    @functools.cached_property
    def initial(self) -> np.ndarray:
        x = _inputs()[0]
        return self.run(x, np.zeros(SHAPE[-1]), np.ones(SHAPE[-1]))


@functools.lru_cache(maxsize=1)
def _numbers(graph: Graph, protection: Protection) -> _Numbers:
    """Returns the outputs of a graph; the last ones are cached, because its checks and its fingerprint share them."""
    return _Numbers(graph, protection)


@functools.cache
def _inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns two different x [4, 4, 4, 16], and random v0 and v1 [16]."""
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(2, *SHAPE))
    return x, other, rng.normal(size=SHAPE[-1]), rng.normal(1, 0.5, SHAPE[-1])


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        return bool((np.abs(a - b) <= 1e-9 * np.maximum(np.abs(a), 1)).all())


# From the cheapest to the costliest; NaN counts as different from everything, so it has a check of its own.
_FAILS: dict[str, Callable[[_Numbers], bool]] = {
    "batch": lambda numbers: bool(numbers.graph.batch_nodes),
    "independent": lambda numbers: 0 not in numbers.graph.live or _alike(numbers.random, numbers.elsewhere),
    "not_finite": lambda numbers: not np.isfinite([numbers.random, numbers.initial]).all(),
    "constant": lambda numbers: _alike(numbers.initial, numbers.initial.flat[0]),
    "flat": lambda numbers: _alike(numbers.random, numbers.random[:, :1, :1]),
}
