"""Names, order and shapes of the authors' full-size checkpoints, by variant; what does not fit is named."""

import json

import numpy as np
import pytest

import tf_evonorm
from tf_pixpro import BYOL, LARS, PixContrast, PixelPropagation, PixPro, ProjectionHead, SimCLR
from tf_pixpro.checkpoints import pytorch_names
from tf_pixpro.checkpoints.state_dicts import state_dict


def model(layers=1, instance=False, blocks=None):
    encoder = tf_evonorm.backbones.resnet(50, blocks=blocks, width=1 / 64)
    return PixPro(
        encoder,
        ProjectionHead(4, 3),
        PixelPropagation(value_layers=layers),
        instance=BYOL(4, 3) if instance else None,
    )


@pytest.fixture
def full_size(shared_data):
    path = shared_data("../golden/pixpro/state_dict_keys_full_size.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("layers, instance", [(1, False), (2, True), pytest.param(0, False, marks=pytest.mark.slow)])
def test_names_and_optimizer_order_are_the_authors(full_size, layers, instance):
    expected = full_size[f"resnet50_transform{layers}_ins{int(instance)}"]
    ours = model(layers, instance)
    assert list(pytorch_names.state(ours)) == list(expected["state_dict"])
    assert [f"module.{n}" for n in pytorch_names.optimized(ours)] == expected["optimizer_index_to_name"]
    ranks = {name: len(array.shape) for name, array in pytorch_names.state(ours).items()}
    assert ranks == {name: len(shape) for name, shape in expected["state_dict"].items()}
    full = {name.removeprefix("module."): np.empty(shape) for name, shape in expected["state_dict"].items()}
    arguments = pytorch_names.model_arguments(full)
    assert arguments["encoder"] == {"depth": 50} and arguments["projection"] == {"hidden": 4096, "features": 256}
    assert arguments["propagation"] == {"value_layers": layers}
    assert arguments.get("instance") == ({"hidden": 4096, "features": 256} if instance else None)


def test_state_and_buffers_come_back():
    one, two = model(2, True, (1, 1, 1, 1)), model(2, True, (1, 1, 1, 1))
    rules = [LARS(0.1, weight_decay=1e-5) for _ in range(2)]
    random = np.random.default_rng(0)
    for pretext, rule in zip((one, two), rules):
        rule.build(pretext.trainable_weights)
    for variable in (*one.weights[:-1], *rules[0].momentums):
        variable.assign(random.normal(size=variable.shape))
    pytorch_names.load(pytorch_names.names(two), state_dict({"model": pytorch_names.state(one, 6)}))
    pytorch_names.load_buffers(two, rules[1], pytorch_names.buffers(one, rules[0]))
    for a, b in zip((*one.weights[:-1], *rules[0].momentums), (*two.weights[:-1], *rules[1].momentums)):
        np.testing.assert_array_equal(a, b, err_msg=a.name)
    assert pytorch_names.state(one, 6)["module.encoder.bn1.num_batches_tracked"] == 6


def test_what_does_not_fit_is_named_and_nothing_changes():
    ours = model(blocks=(1, 1, 1, 1))
    state, named = state_dict({"model": pytorch_names.state(ours)}), pytorch_names.names(ours)
    before = [w.numpy() for w in ours.weights]
    changed = {name: value + 1 for name, value in state.items()}
    for change, words in [
        ({"predictor.linear1.bias": np.zeros(3)}, "predictor.linear1.bias has no place in the model"),
        (
            {"encoder.conv1.weight": np.zeros((8, 3, 7, 7))},
            r"conv1.weight is \[8, 3, 7, 7\], which must be \[1, 3, 7, 7\]",
        ),
        ({"encoder.bn1.bias": np.array([np.nan])}, "encoder.bn1.bias holds numbers that are not finite"),
    ]:
        with pytest.raises(ValueError, match=words):
            pytorch_names.load(named, {**changed, **change})
    with pytest.raises(ValueError, match=r"encoder.conv1.weight is missing; .* and \d+ more"):
        pytorch_names.load(named, {})
    for weight, old in zip(ours.weights, before):
        np.testing.assert_array_equal(weight, old)


def test_buffers_that_do_not_fit_are_refused():
    ours, rule = model(blocks=(1, 1, 1, 1)), LARS()
    rule.build(ours.trainable_weights)
    saved = pytorch_names.buffers(ours, rule)
    for broken, words in [
        ({}, "Missing: 'param_groups'"),
        ({**saved, "state": {}}, "Missing: 0"),
        ({**saved, "param_groups": saved["param_groups"][:1]}, r"must hold \d+ buffers"),
    ]:
        with pytest.raises(ValueError, match=words):
            pytorch_names.load_buffers(ours, rule, broken)


def test_only_models_of_theirs_have_their_names():
    encoder = tf_evonorm.backbones.resnet(50, blocks=(1, 1, 1, 1), width=1 / 64)
    for other in (
        PixContrast(encoder, ProjectionHead(4, 3)),
        PixPro(encoder, ProjectionHead(4, 3), instance=SimCLR(hidden=4, features=3)),
        PixPro(encoder, instance=BYOL(4, 3), pixel_weight=0.0),
    ):
        with pytest.raises(ValueError, match="Received a model of another kind"):
            pytorch_names.names(other)
    for state, words in [
        ({}, "Received a state dict of 0 entries"),
        ({"cls_token": np.zeros(3)}, "such as 'cls_token'"),
    ]:
        with pytest.raises(ValueError, match=words):
            pytorch_names.encoder_arguments(state)
