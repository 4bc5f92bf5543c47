"""Cheap checks of a graph on fixed random numbers, before anything is trained; and a fingerprint of what it computes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Optional

import numpy as np

from tf_evonorm.search.space.graph import Graph, evaluate
from tf_evonorm.search.space.primitives import USUAL, Protection

SHAPE, GROUPS = (4, 4, 4, 16), 4


@dataclasses.dataclass(frozen=True)
class Checks:
    """Which graphs are passed over. Each check may be switched off; the paper names none but the last.

    Attributes:
      independent: the output does not change with x.
      not_finite: infinite or NaN on normal numbers.
      constant: one single value at v0 = 0, v1 = 1.
      flat: the same value at all places of a sample and channel, so that a network of such layers sees no shapes.
      batch: a live node aggregates over the batch; for the S series.

    Source: the last is the EvoNorm paper's S series, decided on live nodes because the paper's graph of S0 has a dead batch node.
    """

    independent: bool = True
    not_finite: bool = True
    constant: bool = True
    flat: bool = True
    batch: bool = False

    def reason(self, graph: Graph, protection: Protection = USUAL) -> Optional[str]:
        """Name of the first check that a graph fails, of those that are on; None if it passes."""
        numbers = _numbers(graph, protection)
        for name, fails in _FAILS.items():
            if getattr(self, name) and fails(numbers):
                return name
        return None


def fingerprint(graph: Graph, protection: Protection = USUAL) -> str:
    """Name of what a graph computes: graphs of the same name gave the same numbers, to four digits, on fixed random x, v0 and v1.

    Two graphs of one name train alike. Only where their batch nodes stand differently may inference differ.

    Source: AutoML-Zero (Real et al. 2020), functional equivalence checking.
    """
    y = _numbers(graph, protection).random
    bits = (np.where(np.isnan(y), np.nan, y) + 0.0).astype(np.float32).view(np.uint32)
    return hashlib.sha256(((bits + (1 << 9)) >> 10).tobytes()).hexdigest()[:24]  # 13 bits of the fraction


class _Numbers:
    """Outputs of one graph on the fixed inputs, each computed when it is asked for."""

    def __init__(self, graph, protection):
        self.graph, self.protection = graph, protection

    def run(self, x, v0, v1):
        with np.errstate(all="ignore"):
            return evaluate(self.graph, x, v0, v1, self.protection, GROUPS)

    @functools.cached_property
    def random(self):
        x, _, v0, v1 = _inputs()
        return self.run(x, v0, v1)

    @functools.cached_property
    def elsewhere(self):
        _, other, v0, v1 = _inputs()
        return self.run(other, v0, v1)

    @functools.cached_property
    def first(self):
        x = _inputs()[0]
        return self.run(x, np.zeros(SHAPE[-1]), np.ones(SHAPE[-1]))


@functools.lru_cache(maxsize=1)
def _numbers(graph, protection):
    """Those of the graph that was asked for last are kept: its checks and its fingerprint share them."""
    return _Numbers(graph, protection)


@functools.cache
def _inputs():
    rng = np.random.default_rng(0)
    x, other = rng.normal(size=(2, *SHAPE))
    return x, other, rng.normal(size=SHAPE[-1]), rng.normal(1, 0.5, SHAPE[-1])


def _alike(a, b):
    with np.errstate(all="ignore"):
        return bool((np.abs(a - b) <= 1e-9 * np.maximum(np.abs(a), 1)).all())


# From the cheapest to the dearest; NaN counts as different from everything, so it is a reason of its own.
_FAILS = {
    "batch": lambda numbers: bool(numbers.graph.batch_nodes),
    "independent": lambda numbers: 0 not in numbers.graph.live or _alike(numbers.random, numbers.elsewhere),
    "not_finite": lambda numbers: not np.isfinite([numbers.random, numbers.first]).all(),
    "constant": lambda numbers: _alike(numbers.first, numbers.first.flat[0]),
    "flat": lambda numbers: _alike(numbers.random, numbers.random[:, :1, :1]),
}
