"""Configs of the other pretext tasks: what each builds, its recipe, and that its smoke variant computes a loss and
gradients."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.builders import pretext
from experiments.configs.pretrain import (
    byol_r50_imagenet,
    compare_r18_photos,
    pixcontrast_r50_imagenet,
    pixpro_fpn_r50_imagenet,
    pixpro_instance_r50_imagenet,
    pixpro_r50_imagenet,
    pixpro_retinanet_r50_imagenet,
    simclr_r50_imagenet,
)
from experiments.launch import session
from experiments.launch.schedule import Schedule
from tf_pixpro import BYOL, PixContrast, PixPro, SimCLR

# Config -> its model's class, whether it has a pixel term, its instance term, how many maps it reads.
IMAGENET = {
    pixcontrast_r50_imagenet: (PixContrast, True, None, 1),
    pixpro_instance_r50_imagenet: (PixPro, True, SimCLR, 1),
    byol_r50_imagenet: (PixPro, False, BYOL, 1),
    simclr_r50_imagenet: (PixPro, False, SimCLR, 1),
    pixpro_fpn_r50_imagenet: (PixPro, True, None, 4),
    pixpro_retinanet_r50_imagenet: (PixPro, True, None, 8),
}


def batch(size=64):
    random = np.random.default_rng(0)
    views = {f"view{v}": random.normal(size=(2, size, size, 3)).astype("f") for v in (1, 2)}
    return {**views, **{f"box{v}": np.tile([[0.1 * v, 0, 0.9, 1]], (2, 1)).astype("f") for v in (1, 2)}}


def name(module):
    return module.__name__.rpartition(".")[2]


QUICK = (pixpro_instance_r50_imagenet,)  # what the others add is built by the comparison below
SLOW = [pytest.param(module, marks=pytest.mark.slow) for module in IMAGENET if module not in QUICK]


@pytest.mark.parametrize("module", [*QUICK, *SLOW], ids=name)
def test_smoke_variants_learn(module):
    kind, pixels, instance, maps = IMAGENET[module]
    config = module.get_config("smoke")
    model = pretext.pretext_model(config, 4)
    assert type(model) is kind and bool(model.pixel_weight) is pixels and len(model.levels) == maps
    assert isinstance(model.instance, instance) if instance else model.instance is None
    with tf.GradientTape() as tape:
        logs = model.pretext_loss(batch())
    slope = tape.gradient(logs["loss"], model.encoder.trainable_weights[0])
    assert np.isfinite(logs["loss"]) and np.abs(slope).max() > 0
    schedule = session.build(Schedule, "schedule", config.schedule, images=16)
    session.build(pretext.evaluation, "evaluation", config.evaluation, config=config, schedule=schedule)


@pytest.mark.parametrize("module", IMAGENET, ids=name)
def test_the_recipe_is_pixpros(module):
    for variant in ("100", "400"):
        ours, theirs = module.get_config(variant), pixpro_r50_imagenet.get_config(variant)
        for section in ("source", "views", "norm_act", "backbone", "schedule", "optimizer", "runtime", "seed"):
            assert ours[section] == theirs[section], section
        assert ours.model.distance == 0.7 and ours.model.momentum == 0.99
    with pytest.raises(ValueError, match="Received 'tiny'"):
        module.get_config("tiny")


def test_the_authors_own_instance_term():
    config = pixpro_instance_r50_imagenet.get_config("byol")
    assert config.instance.to_dict() == {"name": "byol", "hidden": 4096, "features": 256}
    assert config.schedule.epochs == 100


@pytest.mark.parametrize("task", compare_r18_photos.TASKS)
def test_the_compared_tasks_share_everything_else(task):
    config, pixpro = (compare_r18_photos.get_config(variant) for variant in (task, "pixpro"))
    for section in ("source", "views", "norm_act", "backbone", "schedule", "optimizer", "evaluation", "trainer"):
        assert config[section] == pixpro[section], section
    model = pretext.pretext_model(compare_r18_photos.get_config(f"{task}-smoke"), 4)
    assert np.isfinite(model.pretext_loss(batch(96), training=False)["loss"])


def test_wrong_names_are_reported():
    with pytest.raises(ValueError, match="one of simclr, byol"):
        compare_r18_photos.get_config("moco")
    config = pixcontrast_r50_imagenet.get_config("smoke")
    config.model.name = "pixcontrat"
    with pytest.raises(
        ValueError, match=r"config\.model\.name must be one of pixpro, pixcontrast\. Received 'pixcontrat'"
    ):
        pretext.pretext_model(config, 1)
    config = byol_r50_imagenet.get_config("smoke")
    config.instance.temprature = 1
    with pytest.raises(ValueError, match=r"config\.instance holds arguments of BYOL.*temprature"):
        pretext.pretext_model(config, 1)
