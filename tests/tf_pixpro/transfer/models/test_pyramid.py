"""A pyramid and head towers as encoder: the pixel task on several levels, and detectors restored from it."""

import numpy as np
import pytest
import tensorflow as tf
from official.vision.configs import retinanet
from official.vision.modeling.decoders.fpn import FPN
from official.vision.modeling.heads.dense_prediction_heads import RetinaNetHead

import tf_evonorm
from tf_pixpro import LARS, PixelPropagation, PixPro, ProjectionHead, load_backbone, save_backbone
from tf_pixpro.geometry import positive_mask
from tf_pixpro.pretext.losses import pixel_consistency
from tf_pixpro.transfer import tasks
from tf_pixpro.transfer.models.pyramid import Pyramid, load_parts, pyramid

LEVELS = ("3", "4", "5", "6")


def backbone():
    return tf_evonorm.backbones.resnet(18, blocks=(1, 1, 1, 1), width=0.125)


def batch(count=2, size=64):
    random = np.random.default_rng(1)
    views = {f"view{v}": random.normal(size=(count, size, size, 3)).astype("f") for v in (1, 2)}
    return {**views, **{f"box{v}": np.tile([[0.1 * v, 0, 0.9, 1]], (count, 1)).astype("f") for v in (1, 2)}}


def model(towers=0, level=LEVELS, **kwargs):
    encoder = pyramid(backbone(), filters=8, towers=towers)
    return PixPro(encoder, ProjectionHead(8, 8), PixelPropagation(), level=level, **kwargs)


def test_losses_of_levels_are_averaged_with_one_distance():
    pretext, given = model(), batch()
    levels = [pretext.encoder(given[v]) for v in ("view1", "view2")]
    keys = [pretext.momentum_encoder(given[v]) for v in ("view1", "view2")]
    assert [levels[0][level].shape[1] for level in LEVELS] == [8, 4, 2, 1]
    losses = []
    for level in LEVELS:
        predictions = [pretext.propagate(pretext.projection(maps[level])) for maps in levels]
        targets = [tf.math.l2_normalize(pretext.momentum_projection(maps[level]), -1) for maps in keys]
        mask = positive_mask(given["box1"], given["box2"], levels[0][level].shape[1:3], 0.7)
        one = pixel_consistency(predictions[0], targets[1], mask)
        losses.append(one + pixel_consistency(predictions[1], targets[0], tf.linalg.matrix_transpose(mask)))
    logs = pretext.pretext_loss(given, training=False)
    np.testing.assert_allclose(logs["loss"], np.mean(losses), rtol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A pyramid with towers after a step, and the checkpoint that it leaves."""
    tf.keras.utils.set_random_seed(3)
    pretext = model(towers=2, level=("class/3", "box/4"))
    before = [w.numpy() for w in pretext.encoder.weights]
    rule = LARS(1.0)
    rule.build(pretext.trainable_weights)
    pretext.learn(batch(), rule)
    path = save_backbone(pretext.encoder, str(tmp_path_factory.mktemp("run") / "backbone"))
    return pretext, before, path


def test_every_part_learns(trained):
    pretext, before, _ = trained
    moved = {w.name for w, old in zip(pretext.encoder.weights, before) if not np.array_equal(old, w)}
    parts = (
        "conv1/kernel",
        "layer4.0.bn2/gamma",
        "lateral_3/kernel",
        "lateral_5/kernel",
        "post_hoc_4/kernel",
    )
    towers = (
        "classnet-conv_1/kernel",
        "boxnet-conv_0/kernel",
        "classnet-conv-norm_3_1/gamma",
        "boxnet-conv-norm_4_0/moving_mean",
    )
    for name in (*parts, *towers):
        assert any(name in other for other in moved), name
    # Level 5 gets no loss of its own here, and its last convolution stays.
    assert not any("post_hoc_5/kernel" in name or "classnet-conv-norm_4_1/gamma" in name for name in moved)


def test_the_checkpoint_carries_backbone_decoder_and_head(trained):
    pretext, _, path = trained
    keys = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    assert {"backbone", "decoder", "head"} <= {key.split("/")[0] for key in keys}
    encoder = backbone()
    assert load_backbone(encoder, path) == path
    for one, two in zip(pretext.encoder.backbone.weights, encoder.weights):
        np.testing.assert_array_equal(one, two)
    run = tf.train.Checkpoint(model=pretext).write(path + "-run")
    again = backbone()
    load_backbone(again, run)
    np.testing.assert_array_equal(again.weights[0], encoder.weights[0])


class Detector:
    """The parts of Model Garden's detectors, as their `checkpoint_items` gives them."""

    def __init__(self, min_level=3, max_level=7, head=True):
        encoder = backbone()
        self.checkpoint_items = {"backbone": encoder, "decoder": FPN(encoder.output_specs, min_level, max_level, 8)}
        levels = self.checkpoint_items["decoder"](encoder(tf.zeros([1, 64, 64, 3])))
        if head:
            self.checkpoint_items["head"] = RetinaNetHead(min_level, max_level, 5, 3, num_convs=2, num_filters=8)
            self.checkpoint_items["head"](levels)


def test_detectors_load_what_they_have(trained):
    pretext, _, path = trained
    detector = Detector()
    head = detector.checkpoint_items["head"]
    scores = [w.numpy() for w in head._classifier.weights]
    assert load_parts(detector, path) == ["backbone", "decoder", "head"]
    for name, part in (("backbone", pretext.encoder.backbone), ("decoder", pretext.encoder.decoder)):
        for one, two in zip(part.weights, detector.checkpoint_items[name].weights):
            np.testing.assert_array_equal(one, two, err_msg=one.name)
    for one, two in zip(pretext.encoder.head._cls_convs, head._cls_convs):
        np.testing.assert_array_equal(one.kernel, two.kernel)
    np.testing.assert_array_equal(pretext.encoder.head._box_norms[1][1].gamma, head._box_norms[1][1].gamma)
    for one, two in zip(scores, head._classifier.weights):
        np.testing.assert_array_equal(one, two)
    # A detector reads what the pre-trained towers gave.
    features = pretext.encoder(batch()["view1"])
    levels = detector.checkpoint_items["decoder"](detector.checkpoint_items["backbone"](batch()["view1"]))
    np.testing.assert_allclose(head(levels)[0]["4"], head._classifier(features["class/4"]), rtol=1e-5, atol=1e-6)


def test_a_detector_without_head_and_one_of_other_levels(trained):
    path = trained[-1]
    assert load_parts(Detector(head=False), path) == ["backbone", "decoder"]
    other = Detector(min_level=2, max_level=6, head=False)
    before = [w.numpy() for w in other.checkpoint_items["backbone"].weights]
    with pytest.raises(ValueError, match="norm_6/beta is missing"):
        load_parts(other, path)
    for weight, old in zip(other.checkpoint_items["backbone"].weights, before):
        np.testing.assert_array_equal(weight, old)


def test_parts_are_read_by_name_or_none_at_all(trained, tmp_path):
    pretext, _, path = trained
    detector = Detector()
    head = detector.checkpoint_items["head"]
    params, optimizer = retinanet.RetinaNetTask(), tf.keras.optimizers.SGD
    before = [w.numpy() for w in head.weights]

    def task(init, *parts):
        encoder = detector.checkpoint_items["backbone"]
        made = tasks.RetinaNetTask(params, lambda: (detector, encoder), optimizer, init, init_modules=parts)
        return made, made.build_model()

    alone = save_backbone(backbone(), str(tmp_path / "backbone"))
    ours, model = task(alone, "backbone", "decoder")
    weights = [w.numpy() for w in detector.checkpoint_items["backbone"].weights]
    with pytest.raises(ValueError, match=r"must hold backbone, decoder\. Received .* without decoder"):
        ours.initialize(model)
    for one, two in zip(weights, detector.checkpoint_items["backbone"].weights):
        np.testing.assert_array_equal(one, two)
    ours, model = task(path, "backbone", "decoder")
    ours.initialize(model)
    for one, two in zip(pretext.encoder.decoder.weights, detector.checkpoint_items["decoder"].weights):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(before, head.weights):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match=r"some of the model's, backbone, decoder\. Received head"):
        load_parts(Detector(head=False), path, ("backbone", "head"))


def test_the_momentum_copy_is_equal_and_apart():
    pretext = model(towers=1, level="box/3")
    assert isinstance(pretext.momentum_encoder, Pyramid)
    for one, two in zip(pretext.encoder.weights, pretext.momentum_encoder.weights):
        assert one is not two
        np.testing.assert_array_equal(one, two)


def test_wrong_levels_are_refused():
    with pytest.raises(ValueError, match="begins at a level of the backbone"):
        pyramid(backbone(), min_level=1)
    with pytest.raises(ValueError, match="towers must be 0 or more"):
        pyramid(backbone(), towers=-1)
