"""Linear evaluation: the protocol's numbers, an encoder that comes out as it went in, the whole held-out set."""

import numpy as np
import pytest
import tensorflow as tf
from official.modeling import optimization

from experiments import classify
from experiments.builders import classifier
from experiments.configs.classify import linear_r18_photos, linear_r50_imagenet
from experiments.launch import session
from experiments.launch.schedule import Schedule
from tf_evonorm.backbones import resnet
from tf_pixpro import WarmupCosine, data, load_backbone, save_backbone


def test_the_protocol():
    # Source: the authors' main_linear.py; their warm-up and cosine are WarmupCosine, held to golden numbers elsewhere.
    config = linear_r50_imagenet.get_config()
    schedule = Schedule(images=1281167, **config.schedule)
    assert (schedule.batch, schedule.epoch, schedule.steps) == (256, 5004, 500400)
    made = optimization.OptimizerFactory(optimization.OptimizationConfig(classifier.optimization(config, schedule)))
    rate, expected = made.build_learning_rate(), WarmupCosine(30.0, 500400, 5 * 5004)
    steps = [0, 1, 5004, 25020, 25021, 250000, 500399]
    np.testing.assert_allclose([rate(s) for s in steps], [expected(s) for s in steps], rtol=1e-4, atol=1e-7)
    rule = made.build_optimizer(rate).get_config()
    assert (rule["name"], rule["momentum"], rule["nesterov"], rule["decay"]) == ("SGD", 0.9, False, 0.0)
    assert not config.head.weight_decay and not config.average
    photos = linear_r18_photos.get_config()
    assert config.freeze.to_dict() == {"mode": "inference", "standardize": False}
    for section in ("head", "optimizer", "rate", "warmup", "label_smoothing", "evaluation"):
        assert photos[section] == config[section], section
    for module in (linear_r50_imagenet, linear_r18_photos):
        with pytest.raises(ValueError, match="Received 'tiny'"):
            module.get_config("tiny")


def test_the_encoder_comes_out_as_it_went_in(tmp_path):
    config = linear_r18_photos.get_config("smoke")
    trained = resnet(18, width=0.125, blocks=(1, 1, 1, 1))
    for number, weight in enumerate(trained.weights):
        if "kernel" not in weight.name:  # so that moving statistics are not those of the images
            weight.assign(tf.random.stateless_uniform(weight.shape, [number, 7], 0.5, 1.5))
    config.init = save_backbone(trained, str(tmp_path / "init"))
    workdir = str(tmp_path / "run")
    model, results = classify.main(session.start_session(config, workdir))
    kept = resnet(18, width=0.125, blocks=(1, 1, 1, 1))
    load_backbone(kept, f"{workdir}/backbone")
    for one, other in zip(trained.weights, kept.weights):
        np.testing.assert_array_equal(one, other, err_msg=one.name)
    assert np.abs(model.layers[-1].bias).max() > 0  # zero at first

    restored, _ = classifier.restored(config, workdir)
    rows = data.labelled_dataset(data.source(**{**config.source, **config.held_out}), config.views.size, batch=7)
    (batch,) = list(rows)  # seven images, which batches of four do not divide
    right = tf.argmax(restored(batch["image"], training=False), -1).numpy() == batch["label"].numpy()
    assert len(right) == 7
    np.testing.assert_allclose(results["accuracy"], right.mean(), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("module", [linear_r50_imagenet, linear_r18_photos])
def test_the_authors_mode_moves_the_statistics(module, tmp_path):
    config = module.get_config("smoke")
    config.freeze.mode = "training"
    model, results = classify.main(session.start_session(config, str(tmp_path)))
    fresh = {w.name: w.numpy() for w in classifier.model(config, 8).backbone.encoder.weights}
    moved = [w.name for w in model.backbone.encoder.weights if "moving_mean" in w.name and np.any(w.numpy() != 0)]
    assert len(moved) == sum("moving_mean" in name for name in fresh) and 0 <= results["accuracy"] <= 1
