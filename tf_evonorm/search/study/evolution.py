"""Evolution: a window of recent layers, tournaments, and winners by mean score or from the Pareto frontier."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

import numpy as np

from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.space.graph import Graph, Space, mutate, sample

METHODS = ("pareto", "average", "random")


class Member(NamedTuple):
    """A layer of the population.

    Attributes:
      key: what the caller identifies it by.
      graph: the layer.
      scores: one per anchor.
      same_as: key of the first layer that computes the same function.
    """

    key: Any
    graph: Graph
    scores: tuple
    same_as: Any = None


class Proposal(NamedTuple):
    """A graph to try, and the key of its parent, which is None for a newcomer."""

    graph: Graph
    parent: Any


@dataclasses.dataclass(frozen=True)
class Rules:
    """Hyperparameters of the evolution.

    Attributes:
      method: how the winner of a tournament is chosen, "pareto" or "average"; "random" proposes newcomers only.
      initial: number of evaluated layers before which only newcomers are proposed.
      window: number of most recent layers that form the population.
      tournament: share of the population in a tournament; at least one layer.
      newcomers: share of newcomers among later proposals.
      space: space of newcomers and mutations.

    Raises:
      Mistake: for an unknown method, or a number outside its range.

    Source: EvoNorm paper, section 4: tournaments of 5 %, Pareto. A window of 2,500 and a share of newcomers of one half
      are from memory of its appendix and could not be confirmed; the paper does not give the size of the first
      population.
    """

    method: str = "pareto"
    initial: int = 100
    window: int = 2500
    tournament: float = 0.05
    newcomers: float = 0.5
    space: Space = dataclasses.field(default_factory=Space)

    def __post_init__(self):
        if self.method not in METHODS:
            raise Mistake(f"method must be one of {METHODS}. Received method={self.method!r}. The paper's is 'pareto'.")
        if self.window < 1 or self.initial < 1 or not 0 < self.tournament <= 1 or not 0 <= self.newcomers <= 1:
            raise Mistake(
                "window and initial must be positive, tournament in (0, 1] and newcomers in [0, 1]. "
                f"Received window={self.window}, initial={self.initial}, tournament={self.tournament}, "
                f"newcomers={self.newcomers}. The defaults are the paper's."
            )


class Evolution:
    """Regularized evolution with an ask-and-tell interface; nothing is trained here.

    Args:
      rules: hyperparameters; the paper's by default.

    Attributes:
      population: the most recent layers, oldest first.
      told: number of layers passed to `tell`, without cached ones.
    """

    def __init__(self, rules: Optional[Rules] = None):
        self.rules = rules = rules or Rules()
        self.population: collections.deque = collections.deque(maxlen=rules.window)
        self.told = 0

    def tell(self, key: Any, graph: Graph, scores: Iterable[float], same_as: Any = None) -> None:
        """Adds a layer that passed all tests; the oldest one leaves a full window.

        A layer that was not trained because it computes the same function as an earlier one replaces that one at its
        position. So graphs may drift, but copies, which cost nothing, neither displace other layers nor outlive their
        function.

        Args:
          key: anything that identifies the layer.
          graph: the layer.
          scores: one per anchor; higher is better.
          same_as: key of the first layer that computes the same function; None for a layer that was trained.
        """
        member = Member(key, graph, tuple(map(float, scores)), key if same_as is None else same_as)
        if same_as is None:
            self.told += 1
            self.population.append(member)
            return
        for position, other in enumerate(self.population):
            if other.same_as == same_as:
                self.population[position] = member

    def ask(self, rng: np.random.Generator) -> Proposal:
        """Draws the next graph to try: a newcomer, or a mutation of the winner of a tournament."""
        rules = self.rules
        if rules.method == "random" or self.told < rules.initial or rng.random() < rules.newcomers:
            return Proposal(sample(rng, rules.space), None)
        winner = self.winner(rng)
        return Proposal(mutate(winner.graph, rng, rules.space), winner.key)

    def winner(self, rng: np.random.Generator) -> Member:
        """Draws a tournament and returns its winner."""
        size = max(1, round(self.rules.tournament * len(self.population)))
        rivals = [self.population[i] for i in rng.choice(len(self.population), size, replace=False)]
        scores = np.array([rival.scores for rival in rivals])
        if self.rules.method == "average":
            best = np.flatnonzero(scores.mean(1) == scores.mean(1).max())
        else:
            best = pareto(scores)
        return rivals[best[rng.integers(len(best))]]


def pareto(scores: np.ndarray) -> np.ndarray:
    """Returns the indices of the rows that no other row dominates.

    A row dominates another if it is nowhere lower and somewhere higher; equal rows do not dominate each other.

    Args:
      scores: [N, K]; higher is better.

    Returns:
      Ascending row indices [M], M >= 1 if N >= 1.
    """
    scores = np.asarray(scores)
    no_lower = (scores[:, None] >= scores).all(-1)
    higher = (scores[:, None] > scores).any(-1)
    return np.flatnonzero(~(no_lower & higher).any(0))


def ranked(members: Iterable[Member], top: Optional[int] = None) -> list[Member]:
    """Returns members sorted by their mean score, best first; ties keep their order."""
    return sorted(members, key=lambda member: -np.mean(member.scores))[:top]
