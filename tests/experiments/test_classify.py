"""The classification binary: the recipes in their configs, a run that averages, resumes and is served, mistakes in one
line."""

import importlib

import numpy as np
import pytest
import tensorflow as tf
from official.modeling import optimization

from experiments import classify
from experiments.builders import classifier
from experiments.export import export
from experiments.launch import session
from experiments.launch.schedule import Schedule
from tf_pixpro import data
from tf_pixpro.train import loop
from tf_pixpro.views.augment import centre_view

IMAGENET = ["evonorm_r50", "evonorm_mobilenetv2", "evonorm_mnasnet", "evonorm_efficientnet_b0"]
NAMES = [*(f"{name}_imagenet" for name in IMAGENET), "evonorm_r20_cifar10", "finetune_r18_photos"]


def config_of(name, variant=""):
    return importlib.import_module(f"experiments.configs.classify.{name}").get_config(variant)


def rates(config, images, at):
    """Learning rates by epoch."""
    schedule = Schedule(images=images, **config.schedule)
    factory = optimization.OptimizerFactory(optimization.OptimizationConfig(classifier.optimization(config, schedule)))
    rate = factory.build_learning_rate()
    return [float(rate(int(epoch * schedule.epoch))) for epoch in at]


def test_the_resnet_recipe():
    """As in the authors' code: 112,590 steps of 1024, 0.1 per 256 images, tenfold down at 30, 60 and 80."""
    config = config_of("evonorm_r50_imagenet")
    assert Schedule(images=1281167, **config.schedule).steps == 112590
    np.testing.assert_allclose(
        rates(config, 1281167, (2.5, 20, 31, 61, 81)), [0.2, 0.4, 0.04, 0.004, 0.0004], rtol=1e-3
    )


def test_the_mobile_recipe():
    """0.016 per 256 images, 0.97 every 2.4 epochs."""
    found = rates(config_of("evonorm_efficientnet_b0_imagenet"), 1281167, (2.5, 24.01))
    np.testing.assert_allclose(found, [0.016 * 8 / 2 * 0.97**2, 0.016 * 8 * 0.97**10], rtol=0.01)


def test_cosine_and_constant_rates():
    schedule = Schedule(images=100, batch=10, epochs=10, base_rate=25.6, warmup_epochs=2)
    cosine = classifier.learning_rate(schedule)
    assert cosine["cosine"] == {"initial_learning_rate": 1.0, "decay_steps": 80, "offset": 20}
    assert classifier.learning_rate(schedule, "constant")["constant"] == {"learning_rate": 1.0}
    with pytest.raises(ValueError, match=r"must be cosine, step, exponential or constant\. Received kind='linear'"):
        classifier.learning_rate(schedule, "linear")


@pytest.mark.parametrize("name, layer", [*((name, "default") for name in NAMES), (NAMES[-1], "evonorm_s0")])
def test_every_config_builds_a_model(name, layer):
    config = config_of(name, "smoke")
    config.norm_act.name = layer
    model = classifier.model(config, 7)
    assert model.output_shape == (None, 7)
    layers = {type(weighted).__name__ for weighted in model.backbone.layers}
    assert ("EvoNormS0" in layers) == (layer == "evonorm_s0")


@pytest.mark.slow
def test_averages_are_evaluated_kept_and_served(tmp_path):
    config = config_of("evonorm_r20_cifar10", "smoke")
    config.average = {"average_decay": 0.5, "trainable_weights_only": False}
    workdir = str(tmp_path / "run")
    _, results = classify.main(session.start_session(config, workdir))
    assert loop.latest_step(workdir) == 4

    kept, names = classifier.restored(config, workdir)
    held_out = data.source(**{**config.source, **config.held_out})
    rows = data.labelled_dataset(held_out, config.views.size, batch=16, margin=config.evaluation.margin)
    batch = next(iter(rows))
    accuracy = np.mean(tf.argmax(kept(batch["image"], training=False), -1).numpy() == batch["label"].numpy())
    np.testing.assert_allclose(accuracy, results["accuracy"], atol=1e-6)
    slots = tf.train.load_checkpoint(tf.train.latest_checkpoint(workdir))
    averages = [key for key in slots.get_variable_to_shape_map() if "average" in key and "kernel" in key]
    stored = [slots.get_tensor(key) for key in averages]
    kernel = kept.backbone.get_layer("conv1").kernel.numpy()
    assert any(value.shape == kernel.shape and np.allclose(value, kernel, atol=1e-6) for value in stored)

    line = export(str(tmp_path / "served"), workdir=workdir)
    assert "8 classes" in line and list(names) == list(held_out.class_names)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)), tf.uint8)
    answer = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"](
        image_bytes=tf.stack([tf.io.encode_png(image) for image in images])
    )
    views = tf.stack([centre_view(tf.io.encode_png(image), (32, 32), 1.0) for image in images])
    expected = tf.nn.softmax(kept(views, training=False))
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-4, atol=1e-6)
    assert [name.decode() for name in answer["name"].numpy()] == [names[i] for i in np.argmax(expected, -1)]


def test_a_run_resumes_in_its_folder(tmp_path):
    config = config_of("evonorm_r20_cifar10", "smoke")
    config.norm_act.name, config.schedule.epochs = "bn_relu", 0.5
    _, first = classify.main(session.start_session(config, str(tmp_path), "train"))
    assert loop.latest_step(str(tmp_path)) == 2 and not first
    _, results = classify.main(session.start_session(config, str(tmp_path), "eval"))
    assert set(results) >= {"accuracy", "top_5_accuracy", "validation_loss"}


def test_mistakes_are_reported(tmp_path):
    config = config_of("evonorm_r20_cifar10", "smoke")
    config.backbone.name = "vgg"
    with pytest.raises(ValueError, match=r"backbone\.name must be one of resnet, .* Received 'vgg'"):
        classifier.model(config, 10)
    with pytest.raises(FileNotFoundError, match="a classifier is kept at the end of training"):
        classifier.restored(config, str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_config_runs(name, tmp_path):
    config = config_of(name, "smoke")
    config.runtime.mixed_precision_dtype = "float32"
    _, results = classify.main(session.start_session(config, str(tmp_path)))
    assert 0 <= results["accuracy"] <= 1 and np.isfinite(results["validation_loss"])
