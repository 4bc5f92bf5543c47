"""Encoders found in the files of other methods: entries, prefixes, other names, file kinds."""

import pickle
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from tf_evonorm.mistakes import Mistake
from tf_pixpro.checkpoints import pth, state_dicts, unpickle


def resnet(prefix="", offset=0.0):
    """A few weights of a ResNet-18 under torchvision's names."""
    names = ["conv1.weight", "bn1.weight", "bn1.num_batches_tracked"]
    names += [f"layer{n}.0.{part}" for n in range(1, 5) for part in ("conv1.weight", "bn1.running_var")]
    names.append("layer2.0.downsample.0.weight")
    return {f"{prefix}{name}": np.full([2], number + offset, "f4") for number, name in enumerate(names)}


PLAIN = {name: value for name, value in resnet().items() if "tracked" not in name}
HEAD = {"fc.weight": np.zeros((3, 2), "f4"), "fc.bias": np.zeros(3, "f4")}


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


# What a file holds -> the prefix of the encoder in it.
FILES = {
    "torchvision": ({**resnet(), **HEAD}, ""),
    "data-parallel": ({"state_dict": under("module.", {**resnet(), **HEAD}), "epoch": 3}, ""),
    "compiled": ({"model": under("_orig_mod.", resnet())}, ""),
    "both": ({"model": under("module._orig_mod.", resnet())}, ""),
    "compiled inside": ({"model": under("encoder._orig_mod.", resnet())}, "encoder."),
    "compiled, then data-parallel": ({"model": under("_orig_mod.module.", resnet())}, ""),
    "FSDP": (
        {
            "model": {
                re.sub(r"(layer\d\.\d)\.", r"\1._fsdp_wrapped_module._checkpoint_wrapped_module.", name): value
                for name, value in under("_fsdp_wrapped_module.", resnet()).items()
            }
        },
        "",
    ),
    "moco": (
        {
            "state_dict": {
                **resnet("module.encoder_q."),
                **resnet("module.encoder_k.", 9),
                "module.queue": HEAD["fc.bias"],
            }
        },
        "encoder_q.",
    ),
    "moco after training": ({"state_dict": resnet("module.encoder_q.")}, "encoder_q."),
    "lightly": ({"state_dict": {**resnet("backbone."), **resnet("backbone_momentum.", 9), **HEAD}}, "backbone."),
    "byol": ({"state_dict": {**resnet("online.encoder."), **resnet("target.encoder.", 9)}}, "online.encoder."),
    "sequential names": ({"model_state_dict": resnet("net.0.")}, "net.0."),
    "entry net": ({"net": resnet(), "acc": 93.1, "epoch": 7}, ""),
    "with an optimizer": (
        {"model": resnet(), "optimizer": {"state": {0: {"momentum_buffer": np.zeros(2, "f4")}}}, "args": {"lr": 1}},
        "",
    ),
    "texts beside weights": ({"model": {**resnet(), "note": "mine", "version": 3}}, ""),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_encoder_is_found(tmp_path, kind):
    tree, prefix = FILES[kind]
    pth.write(tmp_path / "file.pth", tree)
    state, found, others = state_dicts.encoder_state(state_dicts.state_dict(state_dicts.read(tmp_path / "file.pth")))
    assert found == prefix and set(state) == set(PLAIN)
    for name, value in PLAIN.items():
        np.testing.assert_array_equal(state[name], value)
    assert not any(name.startswith(prefix) and name.endswith("bn1.weight") for name in others if prefix)
    assert ("fc.weight" in others) == (kind in ("torchvision", "data-parallel", "lightly"))


def test_key_and_prefix_choose(tmp_path):
    tree = {"student": resnet("module.backbone."), "teacher": resnet("backbone.", 5)}
    with pytest.raises(Mistake, match=r"Received 2: 'student' \(1\d arrays\), 'teacher' .*--key"):
        state_dicts.state_dict(tree)
    state, prefix, _ = state_dicts.encoder_state(state_dicts.state_dict(tree, "teacher"))
    assert prefix == "backbone." and state["conv1.weight"][0] == 5
    with pytest.raises(Mistake, match=r"--key must lead to weights by name\. Received 'pupil'; the file has 'student'"):
        state_dicts.state_dict(tree, "pupil")
    two = {**resnet("a."), **resnet("b.", 3), **resnet("momentum_encoder.", 7)}
    with pytest.raises(Mistake, match=r"Received weights of 2: 'a\.', 'b\.' among .*Pass one of them as --prefix"):
        state_dicts.encoder_state(two)
    assert state_dicts.encoder_state(two, "b.")[0]["conv1.weight"][0] == 3
    assert state_dicts.encoder_state(two, "momentum_encoder.")[0]["conv1.weight"][0] == 7
    with pytest.raises(Mistake, match=r"--prefix must lead to a ResNet. Received 'c\.'; the file has 'a\.', 'b\.'"):
        state_dicts.encoder_state(two, "c.")


def test_weights_that_could_not_be_read_are_refused_in_the_encoder_alone():
    tree = {"model": {**resnet("backbone."), "freqs": unpickle.Opaque("torch.ComplexFloatStorage")}}
    assert set(state_dicts.encoder_state(state_dicts.state_dict(tree))[0]) == set(PLAIN)
    tree["model"]["backbone.bn1.weight"] = unpickle.Opaque("torch._utils._rebuild_qtensor")
    with pytest.raises(Mistake, match=r"dense .*Received 'backbone\.bn1\.weight' as torch\._utils\._rebuild_qtensor"):
        state_dicts.state_dict(tree)


def test_a_deeper_entry_is_found_and_named():
    tree = {"payload": {"trainer": {"weights": resnet("backbone.")}}}
    assert set(state_dicts.encoder_state(state_dicts.state_dict(tree))[0]) == set(PLAIN)
    assert state_dicts.state_dict(tree, "payload.trainer.weights")


def test_safetensors(tmp_path):
    save_file({**resnet(), **HEAD}, tmp_path / "model.safetensors")
    state, _, others = state_dicts.encoder_state(
        state_dicts.state_dict(state_dicts.read(str(tmp_path / "model.safetensors")))
    )
    assert set(state) == set(PLAIN) and set(others) == set(HEAD)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for spoiled in (b"", whole[:50], b"<html>quota exceeded</html>", whole[:-3]):
        (tmp_path / "model.safetensors").write_bytes(spoiled)
        with pytest.raises(Mistake, match=r"model\.safetensors' must be a safetensors file"):
            state_dicts.read(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError):
        state_dicts.read(tmp_path / "absent.safetensors")


DETECTRON = {
    "stem.conv1.weight": "conv1.weight",
    "stem.conv1.norm.running_mean": "bn1.running_mean",
    "res2.0.conv1.weight": "layer1.0.conv1.weight",
    "res2.0.conv3.norm.bias": "layer1.0.bn3.bias",
    "res5.2.conv2.weight": "layer4.2.conv2.weight",
    "res3.0.shortcut.weight": "layer2.0.downsample.0.weight",
    "res3.0.shortcut.norm.running_var": "layer2.0.downsample.1.running_var",
}


@pytest.mark.parametrize("protocol", range(6))
def test_detectron2(tmp_path, protocol):
    weights = {name: np.full([2, 1], number, "f4") for number, name in enumerate(DETECTRON)}
    tree = {"model": weights, "__author__": "MOCO", "matching_heuristics": True}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(tree, protocol))
    state, _, others = state_dicts.encoder_state(state_dicts.state_dict(state_dicts.read(tmp_path / "model.pkl")))
    assert set(state) == set(DETECTRON.values()) and not others
    for theirs, ours in DETECTRON.items():
        np.testing.assert_array_equal(state[ours], weights[theirs])
