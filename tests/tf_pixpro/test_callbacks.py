"""Callbacks of `fit`: their numbers are those of the encoder they leave, and damage ends a run before it is saved."""

import numpy as np
import pytest
import tensorflow as tf

import tf_pixpro
from tf_pixpro import callbacks
from tf_pixpro.checkpoints import load_backbone
from tf_pixpro.pretext.probe import nearest_neighbour_accuracy

CHANNELS = 8


def encoder():
    images = tf.keras.Input((32, 32, 3))
    features = tf.keras.layers.Conv2D(CHANNELS, 8, strides=8)(images)
    return tf.keras.Model(images, {"5": tf.keras.layers.BatchNormalization()(features)})


def pretext(seed=0, **options):
    tf.keras.utils.set_random_seed(seed)
    head = tf_pixpro.ProjectionHead(hidden=8, features=4)
    model = tf_pixpro.PixPro(encoder(), projection=head, propagation=tf_pixpro.PixelPropagation(), steps=20)
    model.compile(tf_pixpro.LARS(0.5), **options)
    return model


def batch(seed=0, bad=False):
    views = np.random.default_rng(seed).normal(size=(2, 4, 32, 32, 3)).astype("float32")
    if bad:
        views[0, 0, 0, 0, 0] = np.nan
    boxes = np.tile(np.float32([0, 0, 1, 1]), (4, 1))
    return {"view1": views[0], "view2": views[1], "box1": boxes, "box2": boxes}


def batches(*bad):
    """Four batches, the same in each epoch."""
    parts = [batch(seed, bad=seed in bad) for seed in range(4)]
    return tf.data.Dataset.from_tensor_slices({name: np.stack([part[name] for part in parts]) for name in parts[0]})


def labelled(seed, count=24):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    images = (random.normal(size=(count, 32, 32, 3)) + labels[:, None, None, None]).astype("float32")
    return images, labels


def dataset(images, labels):
    return tf.data.Dataset.from_tensor_slices({"image": images, "label": labels}).batch(10)


def test_the_probe_is_of_the_encoder_before_and_after():
    model, bank, queries = pretext(), labelled(0), labelled(1)

    def expected():
        features = [model.encoder.predict(x, verbose=0)["5"].mean(axis=(1, 2)) for x, _ in (bank, queries)]
        return nearest_neighbour_accuracy(features[0], bank[1], features[1], queries[1]), features[0]

    before, _ = expected()
    probe = callbacks.FeatureProbe(dataset(*bank), dataset(*queries))
    history = model.fit(batches(), epochs=2, callbacks=[probe], verbose=0).history
    assert probe.before["knn_accuracy"] == before
    after, features = expected()
    assert len(history["knn_accuracy"]) == 2 and history["knn_accuracy"][-1] == after
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(history["feature_std"][-1], unit.std(axis=0).mean() * CHANNELS**0.5, rtol=1e-4)
    values = np.linalg.svd(features, compute_uv=False)
    shares = values / values.sum()
    np.testing.assert_allclose(history["feature_rank"][-1], np.exp(-(shares * np.log(shares)).sum()), rtol=1e-4)


def test_the_probe_is_taken_every_so_many_epochs():
    probe = callbacks.FeatureProbe(dataset(*labelled(0)), dataset(*labelled(1)), name="nearest", every=2)
    history = pretext().fit(batches().take(1), epochs=4, callbacks=[probe], verbose=0).history
    assert len(history["nearest"]) == 2 and len(history["loss"]) == 4


class Scripted(tf.keras.callbacks.Callback):
    """Adds a number to the logs of each epoch, and keeps the encoder's weights."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers, self.weights = numbers, []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.encoder.get_weights())
        if self.numbers[epoch] is not None:
            logs["score"] = self.numbers[epoch]


@pytest.mark.parametrize("mode, initial, best", [("max", None, 2), ("min", None, 4), ("max", 0.9, None)])
def test_the_backbone_is_the_best_epochs(mode, initial, best, tmp_path):
    numbers = [0.3, None, 0.8, float("nan"), 0.2]
    scripted, path = Scripted(numbers), str(tmp_path / "best")
    keep = callbacks.BestBackbone(path, "score", mode, initial)
    pretext().fit(batches().take(1), epochs=5, callbacks=[scripted, keep], verbose=0)
    if best is None:
        assert keep.best == initial and not list(tmp_path.iterdir())
        return
    assert keep.best == numbers[best]
    kept = encoder()
    load_backbone(kept, path)
    for got, want in zip(kept.get_weights(), scripted.weights[best]):
        np.testing.assert_array_equal(got, want)


def test_a_misspelt_monitor_is_reported(tmp_path):
    keep = callbacks.BestBackbone(str(tmp_path / "best"), "knn")
    with pytest.raises(ValueError, match=r"one of the logs .*loss.* Received 'knn'\. Put the callback that"):
        pretext().fit(batches().take(1), callbacks=[keep], verbose=0)
    with pytest.raises(ValueError, match="'max' or 'min'"):
        callbacks.BestBackbone("best", mode="more")
    with pytest.raises(ValueError, match="every must be positive"):
        callbacks.FeatureProbe(batches(), batches(), every=0)


def test_a_run_ends_at_the_step_that_is_not_finite_and_saves_nothing_of_it(tmp_path):
    keep = callbacks.BestBackbone(str(tmp_path / "best"), "loss", "min")
    with pytest.raises(FloatingPointError, match="They did not by step 3"):
        pretext().fit(batches(2), epochs=2, callbacks=[callbacks.StopAtNonFinite(), keep], verbose=0)
    assert not list(tmp_path.iterdir())


def test_pictures_are_written_as_summaries(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    pictures = callbacks.Pictures(batch(), str(tmp_path), every=2)
    pretext().fit(batches().take(1), epochs=2, callbacks=[pictures], verbose=0)
    (file,) = tmp_path.iterdir()
    events = [value.tag for event in tf.compat.v1.train.summary_iterator(str(file)) for value in event.summary.value]
    assert sorted(events) == sorted(f"{kind}/{i}" for kind in ("similarity", "correspondence") for i in range(4))


class Interrupted(Exception):
    """Ends `fit` after its second epoch."""


def test_a_run_that_backup_and_restore_resumes_is_one_that_never_stopped(tmp_path):
    def interrupt(epoch, logs):
        if epoch == 1:
            raise Interrupted

    whole = pretext()
    whole.fit(batches(), epochs=3, verbose=0)
    backup = lambda: tf.keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))  # noqa: E731
    with pytest.raises(Interrupted):
        stop = tf.keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)
        pretext().fit(batches(), epochs=3, callbacks=[backup(), stop], verbose=0)
    resumed = pretext(seed=1)
    history = resumed.fit(batches(), epochs=3, callbacks=[backup()], verbose=0).history
    assert len(history["loss"]) == 2
    for got, want in zip(resumed.get_weights(), whole.get_weights()):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
