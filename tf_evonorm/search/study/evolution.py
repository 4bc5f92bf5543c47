"""Who has children: a window of the most recent layers, a tournament, a winner by the mean or from the Pareto frontier."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

import numpy as np

from tf_evonorm.search.space.graph import Graph, Space, mutate, sample

METHODS = ("pareto", "average", "random")


class Member(NamedTuple):
    """A layer of the population: what the caller knows it by, its graph, one score per anchor, and the first layer that computed the same."""

    key: Any
    graph: Graph
    scores: tuple
    same_as: Any = None


class Proposal(NamedTuple):
    """A graph to be tried, and the key of its parent; None of a newcomer."""

    graph: Graph
    parent: Any


@dataclasses.dataclass(frozen=True)
class Rules:
    """How the search goes.

    Attributes:
      method: "pareto" or "average", how the winner of a tournament is chosen; "random": no tournaments, newcomers only.
      initial: newcomers are drawn until so many layers have been told.
      window: the most recent layers that are kept.
      tournament: share of the population that takes part, at least one layer.
      newcomers: share of later proposals that are newcomers.
      space: of newcomers and mutations.

    Raises:
      ValueError: an unknown method, or a number outside its range.

    Source: EvoNorm paper, section 4: tournaments of 5 %, Pareto. A window of 2,500 and a half of newcomers are from memory of its
      appendix and could not be confirmed; the size of the first population is nowhere said.
    """

    method: str = "pareto"
    initial: int = 100
    window: int = 2500
    tournament: float = 0.05
    newcomers: float = 0.5
    space: Space = dataclasses.field(default_factory=Space)

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}. Received method={self.method!r}.")
        if self.window < 1 or self.initial < 1 or not 0 < self.tournament <= 1 or not 0 <= self.newcomers <= 1:
            raise ValueError(
                "window and initial must be positive, tournament in (0, 1] and newcomers in [0, 1]. "
                f"Received window={self.window}, initial={self.initial}, tournament={self.tournament}, newcomers={self.newcomers}."
            )


class Evolution:
    """The search, as two questions; nothing is trained here.

    Args:
      rules: see `Rules`.
    """

    def __init__(self, rules: Optional[Rules] = None):
        self.rules = rules = rules or Rules()
        self.population: collections.deque = collections.deque(maxlen=rules.window)
        self.told = 0

    def tell(self, key: Any, graph: Graph, scores: Iterable[float], same_as: Any = None) -> None:
        """Adds a layer that passed all tests, the oldest leaves a full window.

        A layer that computes the same as one before, and was not trained for that reason, takes the place and the age of that one: graphs
        may drift, but copies, which cost nothing, cannot crowd out layers that do something else, nor outlive their own function.

        Args:
          key: anything that identifies it.
          graph: the layer.
          scores: one per anchor, higher is better.
          same_as: key of the first layer that computed the same; None for a layer that was trained.
        """
        member = Member(key, graph, tuple(map(float, scores)), key if same_as is None else same_as)
        if same_as is None:
            self.told += 1
            self.population.append(member)
            return
        for place, other in enumerate(self.population):
            if other.same_as == same_as:
                self.population[place] = member

    def ask(self, rng: np.random.Generator) -> Proposal:
        """Draws the next graph to be tried: a newcomer, or a mutated child of a tournament's winner."""
        rules = self.rules
        if rules.method == "random" or self.told < rules.initial or rng.random() < rules.newcomers:
            return Proposal(sample(rng, rules.space), None)
        winner = self.winner(rng)
        return Proposal(mutate(winner.graph, rng, rules.space), winner.key)

    def winner(self, rng: np.random.Generator) -> Member:
        """Draws a tournament and its winner."""
        size = max(1, round(self.rules.tournament * len(self.population)))
        rivals = [self.population[i] for i in rng.choice(len(self.population), size, replace=False)]
        scores = np.array([rival.scores for rival in rivals])
        if self.rules.method == "average":
            best = np.flatnonzero(scores.mean(1) == scores.mean(1).max())
        else:
            best = pareto(scores)
        return rivals[best[rng.integers(len(best))]]


def pareto(scores: np.ndarray) -> np.ndarray:
    """Numbers of the rows that no other row dominates.

    Args:
      scores: [N, K]; higher is better. A row dominates another if it is nowhere lower and somewhere higher, so equal rows stay.

    Returns:
      Ascending row numbers [M], M >= 1 if N >= 1.
    """
    scores = np.asarray(scores)
    no_lower = (scores[:, None] >= scores).all(-1)
    higher = (scores[:, None] > scores).any(-1)
    return np.flatnonzero(~(no_lower & higher).any(0))


def ranked(members: Iterable[Member], top: Optional[int] = None) -> list[Member]:
    """Members by their mean score, best first, equal ones in their order."""
    return sorted(members, key=lambda member: -np.mean(member.scores))[:top]
