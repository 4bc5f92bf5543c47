"""Evolution: Pareto rows by hand, the window, who may win, and that asking and telling are counted exactly."""

import collections

import numpy as np
import pytest

from tf_evonorm.search.space.graph import BASELINES, sample
from tf_evonorm.search.study.evolution import Evolution, Member, Rules, pareto, ranked


@pytest.mark.parametrize(
    ("scores", "frontier"),
    [
        ([[1, 1]], [0]),
        ([[1, 2], [2, 1]], [0, 1]),  # neither is better everywhere
        ([[1, 2], [1, 1]], [0]),  # 0 dominates 1: equal in one, better in the other
        ([[1, 1], [1, 1]], [0, 1]),  # equal rows do not dominate each other
        ([[1, 1], [1, 1], [2, 1]], [2]),  # 2 dominates both
        ([[3, 0, 0], [0, 3, 0], [0, 0, 3], [1, 1, 1], [2, 0, 0]], [0, 1, 2, 3]),  # 4 is dominated by 0
        ([[5, 5, 5], [4, 4, 4], [6, 3, 3], [4, 4, 6]], [0, 2, 3]),  # 1 is dominated by 0 and by 3
        ([[1], [3], [2], [3]], [1, 3]),  # one anchor: the best
    ],
)
def test_pareto_rows_by_hand(scores, frontier):
    assert pareto(scores).tolist() == frontier


def test_pareto_is_what_the_definition_says():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scores = rng.integers(0, 4, [rng.integers(1, 9), 3])
        expected = [
            i
            for i, row in enumerate(scores)
            if not any((other >= row).all() and (other > row).any() for other in scores)
        ]
        assert pareto(scores).tolist() == expected


def evolved(rules, count, scores=lambda i: (i, i)):
    evolution, rng = Evolution(rules), np.random.default_rng(0)
    for i in range(count):
        evolution.tell(i, sample(rng), scores(i))
    return evolution


def test_the_window_keeps_the_most_recent_only():
    evolution = evolved(Rules(window=7), 0)
    for i in range(30):
        evolution.tell(i, BASELINES["b0"], (i,))
        assert len(evolution.population) == min(i + 1, 7)
        assert [member.key for member in evolution.population] == list(range(max(0, i - 6), i + 1))
        assert evolution.told == i + 1


def test_a_copy_takes_the_place_and_the_age_of_its_original():
    evolution = evolved(Rules(window=3, initial=1), 3)
    evolution.tell(3, BASELINES["s0"], (0.0,), same_as=0)
    evolution.tell(4, BASELINES["s1"], (0.0,), same_as=0)  # drifts on from 3
    assert [member.key for member in evolution.population] == [4, 1, 2] and evolution.told == 3
    assert evolution.population[0].graph == BASELINES["s1"]
    evolution.tell(5, BASELINES["b0"], (1,))  # the oldest is the copy
    evolution.tell(6, BASELINES["s0"], (0.0,), same_as=0)  # of one that has left
    assert [member.key for member in evolution.population] == [1, 2, 5] and evolution.told == 4


def test_newcomers_until_the_first_population_is_scored_and_parents_of_the_window_afterwards():
    rng = np.random.default_rng(1)
    rules = Rules(initial=10, window=20, newcomers=0.25)
    young = evolved(rules, 9)
    assert all(young.ask(rng).parent is None for _ in range(50))
    evolution = evolved(rules, 30)
    parents = [evolution.ask(rng).parent for _ in range(2000)]
    share = parents.count(None) / len(parents)
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2000)
    assert set(parents) - {None} <= set(range(10, 30))
    assert {Evolution(Rules(method="random", initial=1)).ask(rng).parent for _ in range(20)} == {None}


def test_asking_changes_nothing():
    evolution, rng = evolved(Rules(initial=1, newcomers=0.0), 5), np.random.default_rng(2)
    for _ in range(20):
        proposal = evolution.ask(rng)
        parent = next(member for member in evolution.population if member.key == proposal.parent)
        assert sum(a != b for a, b in zip(parent.graph.nodes, proposal.graph.nodes)) <= 1
    assert evolution.told == len(evolution.population) == 5


def test_the_average_and_the_frontier_choose_as_they_say():
    rng = np.random.default_rng(3)
    scores = [(0.9, 0.1), (0.6, 0.6), (0.1, 0.9), (0.5, 0.5), (0.6, 0.6)]
    everyone = dict(initial=1, tournament=1.0, newcomers=0.0)
    wins = {}
    for method in ("average", "pareto"):
        evolution = evolved(Rules(method, **everyone), 5, scores.__getitem__)
        wins[method] = collections.Counter(evolution.winner(rng).key for _ in range(4000))
    assert set(wins["average"]) == {1, 4}
    assert set(wins["pareto"]) == {0, 1, 2, 4}
    assert max(abs(count / 4000 - 0.25) for count in wins["pareto"].values()) < 0.04


def test_a_tournament_is_a_share_of_the_population():
    """Of 100 layers 5 % are 5 rivals: by the mean, the best of all wins with probability 5 / 100."""
    rng = np.random.default_rng(4)
    evolution = evolved(Rules("average", initial=1, newcomers=0.0), 100)
    keys = [evolution.winner(rng).key for _ in range(4000)]
    assert abs(keys.count(99) / 4000 - 0.05) < 5 * np.sqrt(0.05 * 0.95 / 4000)
    assert min(keys) >= 4  # the four lowest can never be the best of five


def test_a_seed_gives_the_same_search():
    def run(seed):
        rng, evolution = np.random.default_rng(seed), Evolution(Rules(initial=5, window=10))
        for key in range(40):
            proposal = evolution.ask(rng)
            evolution.tell(key, proposal.graph, (len(proposal.graph.live), -len(str(proposal.graph))))
        return [str(member.graph) for member in evolution.population]

    assert run(0) == run(0) != run(1)


def test_ranking_by_the_mean():
    members = [Member("a", None, (1, 2)), Member("b", None, (2, 2)), Member("c", None, (0, 3))]
    assert [member.key for member in ranked(members)] == ["b", "a", "c"]
    assert [member.key for member in ranked(members, 1)] == ["b"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(method="best"), r"method must be one of .* Received method='best'"),
        (dict(window=0), r"window and initial must be positive"),
        (dict(tournament=0.0), r"tournament in \(0, 1\]"),
        (dict(newcomers=1.5), r"newcomers in \[0, 1\]"),
    ],
)
def test_wrong_rules_are_reported(wrong, message):
    with pytest.raises(ValueError, match=message):
        Rules(**wrong)
