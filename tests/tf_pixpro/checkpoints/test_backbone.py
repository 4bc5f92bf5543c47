"""Encoder checkpoints: Model Garden's own task reads them, and what does not fit is refused whole."""

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import tensorflow as tf

import tf_evonorm
import tf_pixpro
from tf_evonorm.backbones import resnet
from tf_pixpro.checkpoints import backbone as backbones
from tf_pixpro.checkpoints import load_backbone, save_backbone


def encoder(depth=18, seed=0, width=0.125, **kwargs):
    """A small encoder whose every variable, statistics too, is drawn from the seed."""
    model = resnet(depth, width=width, **kwargs)
    generator = np.random.default_rng(seed)
    model.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in model.weights])
    return model


def assert_same(first, second):
    assert len(first.weights) == len(second.weights)
    for one, two in zip(first.weights, second.weights):
        np.testing.assert_array_equal(one.numpy(), two.numpy(), err_msg=one.name)


def pretext(of):
    head = tf_pixpro.ProjectionHead(hidden=16, features=8)
    return tf_pixpro.PixPro(of, projection=head, propagation=tf_pixpro.PixelPropagation())


@pytest.mark.parametrize("kind", ["resnet", "mobilenetv2", "pretext"])
def test_keys_of_a_model_in_memory_are_those_that_tensorflow_writes(tmp_path, kind):
    model = resnet(18, width=0.125) if kind != "mobilenetv2" else tf_evonorm.backbones.mobilenetv2()
    if kind == "pretext":
        heads = tf_pixpro.ProjectionHead(4, 3), tf_pixpro.PixelPropagation(value_layers=2)
        model = tf_pixpro.PixPro(model, *heads)
    written = backbones._variables(tf.train.Checkpoint(own=model).write(str(tmp_path / "model")))
    assert backbones._own_variables(model) == backbones._below(written, ("own",))


def test_round_trip(tmp_path):
    saved, other = encoder(seed=0), encoder(seed=1)
    path = save_backbone(saved, str(tmp_path / "deep" / "backbone"))
    assert load_backbone(other, path) == path
    assert_same(saved, other)


def test_model_gardens_tasks_read_it(tmp_path):
    pytest.importorskip("official.vision.tasks", reason="needs Model Garden, which is Keras 2")
    from official.vision.configs import retinanet as retinanet_config
    from official.vision.configs import semantic_segmentation as segmentation_config
    from official.vision.modeling import segmentation_model
    from official.vision.modeling.heads import segmentation_heads
    from official.vision.tasks import retinanet, semantic_segmentation

    saved = encoder(seed=0)
    path = save_backbone(saved, str(tmp_path / "backbone"))
    head = segmentation_heads.SegmentationHead(num_classes=3, level=5, num_convs=1, num_filters=8)
    model = segmentation_model.SegmentationModel(encoder(seed=1), decoder=None, head=head)
    model(tf.zeros([1, 64, 64, 3]))

    task = semantic_segmentation.SemanticSegmentationTask(
        segmentation_config.SemanticSegmentationTask(init_checkpoint=path, init_checkpoint_modules="backbone")
    )
    task.initialize(model)
    assert_same(saved, model.backbone)

    detector = tf.keras.Model()
    detector.backbone = encoder(seed=2)
    task = retinanet.RetinaNetTask(
        retinanet_config.RetinaNetTask(init_checkpoint=path, init_checkpoint_modules="backbone")
    )
    task.initialize(detector)
    assert_same(saved, detector.backbone)


OTHER = '''
import sys
import numpy as np
import tensorflow as tf
from tf_evonorm import backbones
from tf_pixpro import LARS, PixPro, ProjectionHead, load_backbone, save_backbone

def run(encoder, path):
    """What training leaves: the model with its optimizer."""
    model, optimizer = PixPro(encoder, ProjectionHead(8, 4)), LARS(0.1)
    optimizer.build(model.trainable_variables)
    tf.train.Checkpoint(global_step=tf.Variable(3), model=model, optimizer=optimizer).write(path)

for name in ("resnet", "mobilenetv2", "efficientnet"):
    model = getattr(backbones, name)(width=0.125)
    generator = np.random.default_rng(7)
    model.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in model.weights])
    expected = model.get_weights()
    for ending in ("", "_run", ".safetensors", ".weights.h5"):
        path = f"{sys.argv[2]}/{name}{ending}"
        if sys.argv[1] == "write":
            (run if ending == "_run" else save_backbone)(model, path)
        else:
            model.set_weights([np.zeros(weight.shape) for weight in model.weights])
            load_backbone(model, path)
            assert all((one == two).all() for one, two in zip(model.get_weights(), expected)), path
'''

# Model Garden, in the Keras 2 of the same environment, reads what `save_backbone` has written.
GARDEN = """
import sys
import numpy as np
import tensorflow as tf
from official.vision.configs import semantic_segmentation as configs
from official.vision.tasks import semantic_segmentation as tasks
from tf_evonorm import backbones

for name in ("resnet", "mobilenetv2", "efficientnet"):
    model = tf.keras.Model()
    model.backbone = getattr(backbones, name)(width=0.125)
    generator = np.random.default_rng(7)
    expected = [generator.uniform(0.5, 1.5, weight.shape) for weight in model.backbone.weights]
    settings = {"init_checkpoint": f"{sys.argv[2]}/{name}", "init_checkpoint_modules": "backbone"}
    tasks.SemanticSegmentationTask(configs.SemanticSegmentationTask(**settings)).initialize(model)
    for one, two in zip(model.backbone.get_weights(), expected):
        np.testing.assert_allclose(one, two, rtol=1e-6)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not version("keras").startswith("3.") or importlib.util.find_spec("tf_keras") is None,
    reason="needs both generations of Keras",
)
@pytest.mark.parametrize("writer", ["0", "1"], ids=["Keras 3", "Keras 2"])
def test_both_generations_of_keras_and_model_garden_read_a_file(writer, tmp_path):
    """Backbone files of three kinds, and checkpoints of training with their optimizer."""
    for mode, legacy, program in (("write", writer, OTHER), ("read", "0", OTHER), ("read", "1", OTHER + GARDEN)):
        environment = {**os.environ, "TF_USE_LEGACY_KERAS": legacy}
        subprocess.run([sys.executable, "-c", program, mode, str(tmp_path)], env=environment, check=True)


@pytest.mark.parametrize("items", ["model", "backbone too", "the model itself"])
def test_training_checkpoints_hold_the_encoder(tmp_path, items):
    model = pretext(encoder(seed=0))
    optimizer = tf_pixpro.LARS(0.1, weight_decay=1e-5)
    optimizer.build(model.trainable_variables)
    if items == "the model itself":
        checkpoint = tf.train.Checkpoint(model)
    else:
        checkpoint = tf.train.Checkpoint(global_step=tf.Variable(3), model=model, optimizer=optimizer)
        if items == "backbone too":
            checkpoint.backbone = model.encoder
    path = tf.train.CheckpointManager(checkpoint, str(tmp_path / "run"), max_to_keep=1).save()

    for place in (path, str(tmp_path / "run")):
        other = encoder(seed=1)
        assert load_backbone(other, place) == path
        assert_same(model.encoder, other)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"depth": 34}, r"layer\d\.\d\.\S+ is missing"),
        ({"width": 0.25}, r"conv1/kernel is \[7, 7, 3, 16\] float32, but conv1/kernel in the file is \[7, 7, 3, 8\]"),
        ({"blocks": (1, 1, 1, 1)}, r"layer1\.1\.bn1/beta is not in the encoder; .* and 32 more"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(tmp_path, options, rule):
    path = save_backbone(encoder(seed=0), str(tmp_path / "backbone"))
    other = encoder(seed=1, **options)
    before = other.get_weights()
    with pytest.raises(ValueError, match=rule):
        load_backbone(other, path)
    for weight, old in zip(other.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


def test_wrong_paths_are_refused(tmp_path):
    model = encoder()
    with pytest.raises(FileNotFoundError, match="a path at which there is none"):
        load_backbone(model, str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="a folder without a checkpoint"):
        load_backbone(model, str(tmp_path))
    with pytest.raises(ValueError, match=r"Received the folder .* Pass .*backbone"):
        save_backbone(model, str(tmp_path))
    stranger = tf.train.Checkpoint(step=tf.Variable(1)).write(str(tmp_path / "stranger"))
    with pytest.raises(ValueError, match="which holds step"):
        load_backbone(model, stranger)


@pytest.mark.parametrize("damage", ["index", "data"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = save_backbone(encoder(seed=0), str(tmp_path / "backbone"))
    (file,) = tmp_path.glob(f"backbone.{damage}*")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    other = encoder(seed=1)
    before = other.get_weights()
    with pytest.raises(ValueError, match="must be a complete checkpoint"):
        load_backbone(other, path)
    for weight, old in zip(other.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


def test_only_a_built_encoder_is_taken(tmp_path):
    with pytest.raises(ValueError, match="Pass its `encoder`"):
        save_backbone(pretext(encoder()), str(tmp_path / "backbone"))
    with pytest.raises(ValueError, match="Build it before"):
        save_backbone(tf.keras.Sequential([tf.keras.layers.Dense(1)]), str(tmp_path / "backbone"))
