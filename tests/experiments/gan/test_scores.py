"""Scores of generated images against SciPy's matrix root, NumPy's covariance and cases whose answer is known."""

import numpy as np
import pytest
import scipy.linalg

from experiments.builders.generator import classifier_network
from experiments.gan.scores import InceptionScore, Moments, frechet_distance

RANDOM = np.random.default_rng(0)


def moments(rows, *cuts):
    found = Moments()
    for part in np.split(rows, cuts):
        found.update(part)
    return found


def test_moments_of_a_stream_are_those_of_all_rows():
    rows = RANDOM.normal(3, 2, [500, 7])
    found = moments(rows, 1, 1, 90, 400)
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", [400, 5])  # with 5 rows the covariances have no full rank
def test_frechet_distance_with_scipys_root(count):
    first = RANDOM.normal(size=[count, 8]) @ RANDOM.normal(size=[8, 8])
    second = RANDOM.normal(0.5, 1.5, size=[count, 8]) @ RANDOM.normal(size=[8, 8])
    c1, c2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(c1 + c2 - 2 * root)
    np.testing.assert_allclose(frechet_distance(moments(first, 3), moments(second)), expected, rtol=1e-4)


def test_frechet_distance_where_it_is_known():
    rows = RANDOM.normal(size=[100, 4])
    assert abs(frechet_distance(moments(rows), moments(rows, 50))) < 1e-9
    np.testing.assert_allclose(frechet_distance(moments(rows), moments(rows + [3, 0, 4, 0])), 25, rtol=1e-9)
    # Of centred normal distributions with deviations a and b in each direction: the sum of (a - b)**2.
    spread = rows - rows.mean(0)
    variance = np.trace(moments(spread).covariance)
    np.testing.assert_allclose(frechet_distance(moments(spread), moments(3 * spread)), 4 * variance, rtol=1e-9)


def test_inception_score_where_it_is_known():
    every_class = InceptionScore(splits=2)
    every_class.update(np.eye(5)[np.arange(40) // 2 % 5])
    np.testing.assert_allclose(every_class.result(), (5, 0), atol=1e-9)
    undecided = InceptionScore(splits=1)
    undecided.update(np.full([30, 5], 0.2))
    np.testing.assert_allclose(undecided.result()[0], 1)


def test_inception_score_of_a_stream_is_the_formula():
    rows = RANDOM.dirichlet(np.ones(6), 60)
    found = InceptionScore(splits=3)
    for part in np.split(rows, [7, 50]):
        found.update(part)
    each = []
    for split in range(3):
        p = rows[split::3]
        each.append(np.exp(np.mean(np.sum(p * (np.log(p) - np.log(p.mean(0))), 1))))
    np.testing.assert_allclose(found.result(), (np.mean(each), np.std(each)), rtol=1e-10)


def test_mistakes(tmp_path):
    with pytest.raises(ValueError, match=r"each of 10 parts needs an image\. Received 0"):
        InceptionScore().result()
    with pytest.raises(ValueError, match=r"splits must be positive\. Received splits=0"):
        InceptionScore(0)
    with pytest.raises(ValueError, match=r"a covariance needs two images\. Received 1"):
        moments(np.ones([1, 3])).covariance  # noqa: B018
    with pytest.raises(FileNotFoundError, match="the folder of a run is needed"):
        classifier_network(str(tmp_path))
