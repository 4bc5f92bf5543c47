"""What our tasks change of Model Garden's: every validation batch counts, a step that is not finite is seen."""

import numpy as np
import pytest
import tensorflow as tf
from official.vision.configs import semantic_segmentation

from tf_pixpro.transfer import tasks


class Echo(tf.keras.Model):
    """Predicts for each pixel the class that its first channel names."""

    def __init__(self, classes):
        super().__init__()
        self.classes, self.scale = classes, self.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, inputs, training=None):
        return {"logits": 10.0 * self.scale * tf.one_hot(tf.cast(inputs[..., 0], tf.int32), self.classes)}


def echo_task():
    params = semantic_segmentation.SemanticSegmentationTask()
    params.override({"model": {"num_classes": 4, "input_size": [8, 8, 3]}, "allow_image_summary": False})
    task = tasks.SegmentationTask(params, lambda: (Echo(4), None), lambda: tf.keras.optimizers.SGD(0.1))
    return task, task.build_model()


def batch(seed, ignored=0.2):
    random = np.random.default_rng(seed)
    said, right = random.integers(0, 3, (2, 2, 8, 8, 1))  # class 3 does not occur
    valid = random.random((2, 8, 8, 1)) > ignored
    images = tf.constant(np.repeat(said, 3, axis=-1), tf.float32)
    labels = {
        "masks": tf.constant(np.where(valid, right, 255), tf.float32),
        "valid_masks": tf.constant(valid),
        "image_info": tf.constant([[[8, 8], [8, 8], [1, 1], [0, 0]]] * 2, tf.float32),
    }
    return (images, labels), said[valid], right[valid]


def test_every_validation_batch_counts_and_absent_classes_do_not():
    task, model = echo_task()
    metrics = task.build_metrics(training=False)
    for seeds in ((0, 1, 2), (3, 4)):  # two evaluations, as the train loop runs them
        state, confusion = None, np.zeros((4, 4))
        for seed in seeds:
            inputs, said, right = batch(seed)
            state = task.aggregate_logs(state, task.validation_step(inputs, model, metrics))
            np.add.at(confusion, (right, said), 1)
        logs = task.reduce_aggregated_logs(state)
        hits, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
        assert union[3] == 0
        assert logs["mean_iou"] == pytest.approx((hits[:3] / union[:3]).mean(), abs=1e-6)
        np.testing.assert_allclose([logs[f"iou/{c}"] for c in range(3)], hits[:3] / union[:3], rtol=1e-6)


def test_a_step_that_is_not_finite_is_seen():
    task, model = echo_task()
    optimizer = task.create_optimizer()
    metrics = task.build_metrics(training=True)
    (watch,) = [metric for metric in metrics if metric.name == "nonfinite_steps"]
    inputs, _, _ = batch(0)
    logs = task.train_step(inputs, model, optimizer, metrics)
    assert np.isfinite(logs[task.loss]) and watch.result() == 0 and model.scale != 1
    model.scale.assign(float("nan"))
    task.train_step(inputs, model, optimizer, metrics)
    assert watch.result() == 1
