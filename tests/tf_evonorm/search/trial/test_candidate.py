"""Anchors, training, and the two rejection tests on layers whose fate is known."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import tensorflow as tf

import tf_evonorm
from tf_evonorm.search.space.graph import BASELINES, Graph
from tf_evonorm.search.space.graph_layer import GraphLayer, layer_from_graph
from tf_evonorm.search.trial import anchors, proxy_task, rejection
from tf_evonorm.search.trial.candidate import Candidate, repeated
from tf_evonorm.search.trial.proxy_task import Run, Training
from tf_evonorm.search.trial.rejection import Quality, Stability

TRAINING = Training(steps=60, batch=32, crop=12, rate=0.1, held_out_batch=64)
RESNET, MOBILENET, EFFICIENTNET = anchors.small_anchors(0.5)
TINY = anchors.Anchor(
    "tiny", functools.partial(tf_evonorm.backbones.preactivation_resnet, 18, blocks=(1,), width=0.125, stem="small")
)


@pytest.fixture(scope="module")
def images():
    """Ten classes of stripes, differing in direction and width, in noise: 16x16 pixels."""
    rng = np.random.default_rng(0)
    places = np.stack(np.mgrid[:16, :16], -1) / 16

    def draw(count):
        labels = np.arange(count) % 10
        angle, waves = labels % 5 * np.pi / 5, np.where(labels < 5, 2, 5)
        direction = np.stack([np.cos(angle), np.sin(angle)], -1)[:, None, None]
        phase = rng.uniform(0, 2 * np.pi, [count, 1, 1])
        stripes = np.sin(2 * np.pi * waves[:, None, None] * (places * direction).sum(-1) + phase)
        pixels = stripes[..., None] + rng.normal(0, 0.3, [count, 16, 16, 3])
        return pixels.astype(np.float32), labels

    return proxy_task.Images(*draw(1000), *draw(130), 10)


def test_anchors_are_three_and_take_any_size():
    norm_act = layer_from_graph(BASELINES["b0"])
    for anchor in (RESNET, MOBILENET, EFFICIENTNET):
        model = anchor.backbone(norm_act)
        assert model.input_shape == (None, None, None, 3)
        assert sum(isinstance(layer, GraphLayer) for layer in model.layers) >= 7
        levels = model(np.zeros([2, 24, 24, 3], np.float32))
        assert levels[max(levels)].shape[0] == 2
    assert [anchor.name for anchor in anchors.paper_anchors()] == [anchor.name for anchor in anchors.small_anchors()]


@pytest.mark.slow
def test_the_papers_anchors_keep_their_first_strides():
    for anchor in anchors.paper_anchors():
        levels = anchor.backbone(None)(np.zeros([1, 32, 32, 3], np.float32))
        last = levels[max(levels)]
        # Five strides, of which two are not taken; a ResNet has one of them in its max-pool.
        assert last.shape[1:3] == (4, 4)


def test_rates_by_hand():
    cosine = Training(steps=100, rate=0.2, schedule="cosine")
    assert cosine.rate_at(0) == pytest.approx(0.2)
    assert cosine.rate_at(50) == pytest.approx(0.1)
    assert cosine.rate_at(25) == pytest.approx(0.1 * (1 + math.sqrt(0.5)))
    assert Training(rate=0.3).rate_at(77) == 0.3
    with pytest.raises(ValueError, match=r"schedule must be .* Received schedule='step'"):
        Training(schedule="step")


def test_a_step_is_nesterov_with_decay_of_kernels_only(images):
    run = Run(TINY, layer_from_graph(BASELINES["bn_relu"]), images, dataclasses.replace(TRAINING, weight_decay=0.1))
    names = {weight.name for weight in run.kernels}
    assert len(run.kernels) == 1 + 3 + 1 and not any("gamma" in name or "bias" in name for name in names)
    before = [weight.numpy() for weight in run.model.trainable_weights]
    crops, labels = run.next_batch()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(proxy_task.cross_entropy(labels, run.model(crops, training=True)))
    slopes = tape.gradient(loss, run.model.trainable_weights)
    assert float(run._step(*map(tf.constant, (crops, labels, 0.05)))) == pytest.approx(float(loss), rel=1e-4)
    decayed = {id(kernel) for kernel in run.kernels}
    for weight, old, slope in zip(run.model.trainable_weights, before, slopes):
        slope = slope + 0.1 * old * (id(weight) in decayed)
        # The first step from rest: velocity -rate * g, and Nesterov moves by 0.9 * velocity - rate * g.
        np.testing.assert_allclose(weight, old - 0.05 * 1.9 * slope, rtol=1e-3, atol=1e-6)


def test_batches_go_through_all_images_and_repeat_with_the_seed(images):
    numbered = dataclasses.replace(images, train_labels=np.arange(1000))
    runs = [Run(TINY, layer_from_graph(BASELINES["s1"]), numbered, TRAINING, seed) for seed in (0, 0, 1)]
    drawn = [[run.next_batch() for _ in range(32)] for run in runs]
    labels = np.concatenate([batch[1] for batch in drawn[0]])
    assert sorted(labels[:1000]) == list(range(1000))
    np.testing.assert_array_equal(drawn[0][31][0], drawn[1][31][0])
    assert (drawn[0][0][1] != drawn[2][0][1]).any()
    assert drawn[0][0][0].shape == (32, 12, 12, 3)
    for a, b in zip(runs[0].model.get_weights(), runs[1].model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_a_candidate_is_scored_and_seeds_repeat_it(images):
    candidate = Candidate(images, (TINY,), dataclasses.replace(TRAINING, steps=15), Quality(15, 0.05), Stability(3))
    outcome = candidate(BASELINES["bn_relu"])
    assert outcome.rejected == "" and len(outcome.scores) == 1
    assert outcome.scores[0] == outcome.numbers["tiny quality accuracy"]  # nothing was trained in between
    assert outcome.numbers["tiny stability steps"] == 3
    assert {"building", "precheck", "tracing", "quality", "stability"} <= set(outcome.seconds)
    rows = repeated(BASELINES["bn_relu"], candidate, (0, 1))
    assert rows.shape == (2, 1) and rows[0, 0] == outcome.scores[0] != rows[1, 0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exp(0) exp(4) exp(5)", "not finite at the first pass"),
        ("mul(0,2)", "logits all alike"),  # 0 behind the first layer; the layer checks find it too
        ("square(0) square(4)", "not finite while training"),  # x**4, three times over
    ],
)
def test_a_fault_is_found_where_it_shows(images, text, reason):
    outcome = Candidate(images, (TINY,), TRAINING, Quality(), None)(Graph.read(text))
    assert (outcome.scores, outcome.rejected) == (None, reason)
    assert ("tracing" in outcome.seconds) == ("training" in reason)


@pytest.mark.slow
def test_quality_rejects_what_learns_nothing(images):
    shuffled = dataclasses.replace(images, train_labels=np.random.default_rng(0).permutation(images.train_labels))
    outcome = Candidate(shuffled, (TINY,), TRAINING, Quality(20), None)(BASELINES["bn_relu"])
    assert outcome.rejected == "quality" and outcome.numbers["tiny quality accuracy"] < 0.2


@pytest.mark.slow
def test_stability_climbs_and_gives_the_network_back(images):
    run = Run(RESNET, layer_from_graph(Graph.read("mul(0,3)")), images, TRAINING)
    before = run.model.get_weights()
    verdict = rejection.restored(run, before, Stability(60))
    # A linear network: each step lets all kernels on a path grow, so the norm grows by powers.
    assert not verdict.ok and verdict.reason == "stability" and verdict.numbers["norm"] > 1e8
    for a, b in zip(run.model.get_weights(), before):
        np.testing.assert_array_equal(a, b)
    assert rejection.restored(run, before, Stability(60, limit=math.inf)).numbers["norm"] > 1e8


def test_a_test_takes_no_images_from_the_training(images):
    runs = [Run(TINY, layer_from_graph(BASELINES["bn_relu"]), images, TRAINING) for _ in range(2)]
    rejection.restored(runs[0], runs[0].model.get_weights(), Stability(1))
    for one, two in zip(runs[0].next_batch(), runs[1].next_batch()):
        np.testing.assert_array_equal(one, two)


def test_accuracy_is_measured_once_for_each_step(images, monkeypatch):
    run, passes = Run(TINY, layer_from_graph(BASELINES["bn_relu"]), images, TRAINING), []
    predict = run._predict
    monkeypatch.setitem(run.__dict__, "_predict", lambda batch: passes.append(len(batch)) or predict(batch))
    run.train(1)
    assert run.accuracy() == run.accuracy() and sum(passes) == 130
    run.train(2)
    run.accuracy()
    assert sum(passes) == 260


def test_crops_larger_than_the_images_are_reported(images):
    with pytest.raises(ValueError, match=r"crop must fit into the images. Received crop=24 for images of 16 pixels"):
        Candidate(images, (TINY,), dataclasses.replace(TRAINING, crop=24))
