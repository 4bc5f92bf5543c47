"""Rejection by learning curves: which loss is compared when, and what a trial stores."""

import functools
import math

import numpy as np
import pytest

from tf_evonorm.backbones import preactivation_resnet
from tf_evonorm.search.space.graph import BASELINES
from tf_evonorm.search.trial.anchors import Anchor
from tf_evonorm.search.trial.candidate import Candidate
from tf_evonorm.search.trial.proxy_task import Images, Training
from tf_evonorm.search.trial.rejection import LearningCurve, Quality, smoothed


class Losses:
    """A run with given losses."""

    anchor = Anchor("tiny", None)

    def __init__(self, *losses):
        self.given, self.losses, self.done = losses, [], 0

    def train(self, until):
        while self.done < until and (not self.losses or math.isfinite(self.losses[-1])):
            self.losses.append(self.given[self.done])
            self.done += 1
        return math.isfinite(self.losses[-1])


def test_the_loss_of_ten_steps_is_compared():
    losses = [9.0] * 10 + [2.0] * 5 + [1.0] * 5 + [1.0] * 20
    for limit, ok in ((1.6, True), (1.5, True), (1.4, False)):
        run = Losses(*losses)
        verdict = LearningCurve((20, 40), {"tiny": (limit, 1.0)})(run)
        assert verdict.ok == ok
        assert run.done == (40 if ok else 20)  # it stops where it is rejected
        if not ok:
            assert (verdict.reason, verdict.numbers) == ("learning curve", {"steps": 20, "loss": 1.5})


def test_steps_that_are_done_are_compared_as_they_were():
    run = Losses(*[3.0] * 20, *[1.0] * 20)
    run.train(40)
    assert LearningCurve((20,), {"tiny": (2.9,)})(run).numbers == {"steps": 20, "loss": 3.0}


def test_other_anchors_are_not_tested_and_a_loss_that_is_not_finite_is_named():
    run = Losses(*[9.0] * 50)
    assert LearningCurve((20,), {"other": (0.0,)})(run).ok and run.done == 0
    broken = LearningCurve((20,), {"tiny": (100.0,)})(Losses(1.0, 2.0, math.inf))
    assert (broken.ok, broken.reason, broken.numbers) == (False, "not finite while training", {"steps": 3})


def test_windows_that_are_not_complete():
    assert smoothed([1.0, 3.0]) == [2.0]
    assert smoothed([1.0] * 10 + [5.0] * 3) == [1.0]
    assert smoothed(np.arange(20.0).tolist()) == [4.5, 14.5]
    assert smoothed([]) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": ()}, r"steps must be positive and ascend"),
        ({"steps": (40, 20)}, r"Received steps=\(40, 20\)"),
        ({"steps": (0, 20)}, r"steps must be positive"),
        ({"limits": {"resnet": (2.0, 1.5)}}, r"one loss for each of the 3 steps. Received \(2.0, 1.5\) for resnet"),
    ],
)
def test_wrong_limits(arguments, message):
    with pytest.raises(ValueError, match=message):
        LearningCurve(**arguments)


def test_a_trial_stores_its_losses_and_stops_at_the_limit():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=[40, 8, 8, 3]).astype(np.float32), np.arange(40) % 4
    tiny = Anchor("tiny", functools.partial(preactivation_resnet, 18, blocks=(1,), width=0.125, stem="small"))
    training = Training(steps=30, batch=8, crop=8, rate=0.01)
    images = Images(x, labels, x, labels, 4)
    free = Candidate(images, (tiny,), training, Quality(20, 0.0))(BASELINES["bn_relu"])
    losses = free.numbers["tiny losses"]
    assert len(losses) == 3 and free.scores
    strict = Candidate(images, (tiny,), training, Quality(20, 0.0), curve=LearningCurve((10,), {"tiny": (0.0,)}))
    outcome = strict(BASELINES["bn_relu"])
    assert (outcome.scores, outcome.rejected) == (None, "learning curve")
    assert outcome.numbers["tiny losses"] == losses[:1]  # the same training, ended earlier
    assert outcome.numbers["tiny curve loss"] == pytest.approx(losses[0], abs=1e-4)
    assert "curve" in outcome.seconds and "quality" not in outcome.seconds
