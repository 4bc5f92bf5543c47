"""Probes of frozen features against a plain loop, separable classes, and chance."""

import numpy as np
import pytest

from tf_pixpro.pretext.probe import effective_rank, feature_std, linear_accuracy, nearest_neighbour_accuracy


def clouds(seed, count, classes=3, spread=0.1):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    return np.eye(classes, 8)[labels] + spread * random.normal(size=(count, 8)), labels


@pytest.mark.parametrize("accuracy", [nearest_neighbour_accuracy, linear_accuracy])
def test_separable_classes_are_separated_and_shuffled_labels_are_not(accuracy):
    bank, queries = clouds(0, 90), clouds(1, 60)
    assert accuracy(*bank, *queries) == 1.0
    assert accuracy(*bank, queries[0], np.random.default_rng(2).permutation(queries[1])) < 0.6


def test_neighbours_vote_as_in_a_plain_loop():
    (bank, bank_labels), (queries, labels) = clouds(0, 50, spread=1.0), clouds(1, 40, spread=1.0)
    right = 0
    for query, label in zip(queries, labels):
        cosine = bank @ query / (np.linalg.norm(bank, axis=1) * np.linalg.norm(query))
        nearest = np.argsort(-cosine)[:7]
        votes = [np.exp(cosine[nearest] / 0.2)[bank_labels[nearest] == c].sum() for c in range(3)]
        right += int(np.argmax(votes) == label)
    accuracy = nearest_neighbour_accuracy(bank, bank_labels, queries, labels, neighbours=7, temperature=0.2)
    assert accuracy == right / 40 and 0.4 < accuracy < 1


def test_a_bank_smaller_than_the_neighbours_and_the_length_of_features_do_not_matter():
    bank, queries = clouds(0, 10), clouds(1, 20)
    expected = nearest_neighbour_accuracy(*bank, *queries, neighbours=10)
    assert nearest_neighbour_accuracy(3 * bank[0], bank[1], 100 * queries[0], queries[1], neighbours=50) == expected


def test_mistakes():
    bank = clouds(0, 10)
    with pytest.raises(ValueError, match="Received 0 and 10"):
        nearest_neighbour_accuracy(bank[0][:0], bank[1][:0], *bank)
    with pytest.raises(ValueError, match="Received neighbours=0"):
        nearest_neighbour_accuracy(*bank, *bank, neighbours=0)


def test_the_deviation_of_unit_features_is_1_where_they_spread_and_0_at_one_point():
    """For isotropic Gaussian rows each channel of the unit vectors has the deviation 1 / sqrt(C)."""
    rows = np.random.default_rng(0).normal(size=(4000, 32))
    assert abs(feature_std(rows) - 1) < 0.01
    assert feature_std(np.repeat(rows[:1], 50, axis=0) * np.arange(1, 51)[:, None]) < 1e-7  # of any length


def test_the_effective_rank_is_the_exponent_of_the_entropy_of_singular_values():
    """Roy and Vetterli's properties: k equal values give k; one gives 1; and 3 to 1 by hand."""
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    assert abs(effective_rank(rotation[:, :4] * 7) - 4) < 1e-9
    assert abs(effective_rank(np.outer(np.arange(1, 9), [1.0, 2.0])) - 1) < 1e-6
    by_hand = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert abs(effective_rank(rotation[:, :2] * [3, 1]) - by_hand) < 1e-9
    assert effective_rank(np.zeros((4, 3))) == 0
