"""The authors' checkpoints into ours and back: their numbers after the way through a file, and mistakes in one line."""

import json
import subprocess
import sys

import authors_state
import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict
from reference import channels_last, notes

import tf_evonorm
from experiments import convert
from experiments.builders.pretext import optimizer, pretext_model
from experiments.launch import session
from tf_pixpro import load_backbone
from tf_pixpro.checkpoints import pth, pytorch_names

CASES = [
    "pixpro_ins_t2_224",
    *(pytest.param(t, marks=pytest.mark.slow) for t in ("pixpro_t1_64", "pixpro_r50_t0_96x128")),
]


def restored(folder):
    """Model, optimizer and step of a folder, as a run in float32 would read them."""
    config = ConfigDict(json.loads((folder / "config.json").read_text()))
    schedule = session.build(convert.Schedule, "schedule", config.schedule, images=convert.IMAGENET)
    model, rule, step = (
        pretext_model(config, schedule.steps),
        optimizer(config, schedule),
        tf.Variable(0, dtype=tf.int64),
    )
    rule.build(model.trainable_weights)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=rule, global_step=step)
    checkpoint.read(tf.train.latest_checkpoint(str(folder))).expect_partial().assert_existing_objects_matched()
    return model, rule, int(step)


@pytest.fixture
def float32_recipe(monkeypatch):
    """The recipe without the float16 of its optimizer, for models that are read in float32."""
    recipe = convert.pixpro_r50_imagenet.get_config

    def single(variant):
        config = recipe(variant)
        config.runtime.mixed_precision_dtype = "float32"
        return config

    monkeypatch.setattr(convert.pixpro_r50_imagenet, "get_config", single)


def assert_the_authors_numbers(golden, tag, folder):
    """The weights of the case, and the loss that the authors' code gave with them."""
    given, expected = golden(f"pixpro/c_{tag}_in.npz"), golden(f"pixpro/c_{tag}_out.npz")
    meta = notes(given)
    model, _, _ = restored(folder)
    for name, variable in pytorch_names.names(model).items():
        np.testing.assert_array_equal(pytorch_names.kernel(given[f"state/{name}"]), variable, err_msg=name)
    model.steps = meta["K"]
    model.momentum_step.assign(meta["k_before"])
    views = {f"view{v}": (channels_last(given[f"im{v}_u8"]).astype("f4") - 127.5) / 64 for v in (1, 2)}
    batch = {**views, "box1": given["coord1"], "box2": given["coord2"]}
    np.testing.assert_allclose(model.pretext_loss(batch)["loss"], expected["loss"], rtol=2e-5)


@pytest.mark.parametrize("tag", CASES)
def test_a_converted_model_gives_the_authors_numbers(golden, tmp_path, tag, float32_recipe):
    given = golden(f"pixpro/c_{tag}_in.npz")
    meta, published = notes(given), authors_state.published(given)
    pth.write(tmp_path / "theirs.pth", published)
    answer = convert.convert(str(tmp_path / "theirs.pth"), str(tmp_path / "ours"))
    assert "weights at step 0" in answer
    assert_the_authors_numbers(golden, tag, tmp_path / "ours")

    encoder = tf_evonorm.backbones.resnet(50, blocks=meta["blocks"], width=1 / meta["width_divisor"])
    load_backbone(encoder, str(tmp_path / "ours" / "backbone"))
    np.testing.assert_array_equal(
        encoder.get_layer("conv1").kernel, pytorch_names.kernel(given["state/encoder.conv1.weight"])
    )

    convert.convert(str(tmp_path / "ours"), str(tmp_path / "again.pth"))
    again = pth.read(tmp_path / "again.pth")["model"]
    assert set(again) == set(published["model"])
    for name in (n for n in again if "num_batches" not in n):
        np.testing.assert_array_equal(again[name], published["model"][name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["module.", ""])
def test_a_training_file_is_resumed_with_its_buffers(golden, tmp_path, module, float32_recipe):
    published = authors_state.published(golden("pixpro/c_train3_lars_in.npz"))
    state = {name.removeprefix("module."): value for name, value in published["model"].items()}
    random = np.random.default_rng(0)
    learned = [n for n in state if "_k." not in n and n.endswith(("weight", "bias"))]
    order = [n for flat in (1, 0) for n in learned if (state[n].ndim == 1) == flat]
    buffers = [random.normal(size=state[n].shape).astype("f4") for n in order]
    keys = [140000000000 + 8 * index for index in range(len(order))]  # before version 1.6, addresses instead of indices
    flat = sum(b.ndim == 1 for b in buffers)
    saved = {
        "state": {key: {"momentum_buffer": b} for key, b in zip(keys, buffers)},
        "param_groups": [{"params": keys[:flat]}, {"params": keys[flat:]}],
    }
    tree = {"opt": published["opt"], "model": {module + n: v for n, v in state.items()}, "optimizer": saved, "epoch": 2}
    tree |= {
        "scheduler": {"last_epoch": 37, "base_lrs": [4.0], "after_scheduler": {}},
        "amp": {"loss_scaler0": {"loss_scale": 65536.0}},
    }
    pth.write(tmp_path / "current.pth", tree, legacy=False)
    answer = convert.convert(str(tmp_path / "current.pth"), str(tmp_path / "ours"))
    assert answer.startswith(f"{tmp_path / 'ours'}: weights and momentum buffers at step 37 of ")
    model, rule, step = restored(tmp_path / "ours")
    assert step == model.momentum_step == rule.iterations == 37
    named = pytorch_names.names(model)
    for name, buffer in zip(order, buffers):
        np.testing.assert_array_equal(rule.buffer_of(named[name]), pytorch_names.kernel(buffer), err_msg=name)
    convert.convert(str(tmp_path / "ours"), str(tmp_path / "again.pth"))
    again = pth.read(tmp_path / "again.pth")
    assert again["scheduler"]["last_epoch"] == 37 and [
        len(g["params"]) for g in again["optimizer"]["param_groups"]
    ] == [
        flat,
        len(keys) - flat,
    ]
    for index, buffer in enumerate(buffers):
        np.testing.assert_array_equal(again["optimizer"]["state"][index]["momentum_buffer"], buffer)
    answer = convert.convert(str(tmp_path / "again.pth"), str(tmp_path / "twice"))
    assert "weights and momentum buffers at step 37 of " in answer
    configs = [(tmp_path / name / "config.json").read_text() for name in ("ours", "twice")]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("option, answer", [("optimizer", "optimizer=sgd"), ("lr_scheduler", "lr_scheduler=step")])
def test_what_has_no_counterpart_is_reported(golden, tmp_path, option, answer):
    published = authors_state.published(golden("pixpro/c_pixpro_t1_64_in.npz"))
    published["opt"][option] = answer.partition("=")[2]
    pth.write(tmp_path / "theirs.pth", {**published, "optimizer": {"state": {}}})
    line = convert.convert(str(tmp_path / "theirs.pth"), str(tmp_path / "ours"))
    assert ": weights at step 0 of " in line and line.endswith(f"; not taken over: {answer}")


def test_half_precision_runs_find_their_optimizer(golden, tmp_path):
    pth.write(tmp_path / "theirs.pth", authors_state.published(golden("pixpro/c_train3_lars_in.npz")))
    convert.convert(str(tmp_path / "theirs.pth"), str(tmp_path / "ours"))
    reader = tf.train.load_checkpoint(str(tmp_path / "ours"))
    assert any("loss_scale" in key for key in reader.get_variable_to_shape_map())
    assert tf.keras.mixed_precision.global_policy().name == "float32"


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.slow)])
def test_torchvisions_layout(tmp_path, depth):
    source = tf_evonorm.backbones.resnet(depth, width=0.125)
    for weight in source.weights:
        weight.assign(tf.random.stateless_normal(weight.shape, (1, 2)))
    state = {name: pytorch_names._torch(variable) for name, variable in pytorch_names.encoder_names(source).items()}
    pth.write(tmp_path / "resnet.pth", {**state, "fc.weight": np.zeros((9, 8), "f4"), "fc.bias": np.zeros(9, "f4")})
    folder = tmp_path / "o_resnet.pth"  # what is made of a file is a folder, whatever it is called
    answer = convert.convert(str(tmp_path / "resnet.pth"), str(folder))
    assert f"resnet{depth}" in answer
    found = tf_evonorm.backbones.resnet(depth, width=0.125)
    load_backbone(found, str(folder / "backbone"))
    for one, two in zip(source.weights, found.weights):
        np.testing.assert_array_equal(one, two)


def test_pytorchs_own_file_converts(golden, tmp_path, float32_recipe):
    torch = pytest.importorskip("torch", reason="needs PyTorch, the extra 'pytorch'")
    import argparse
    import collections

    given = golden("pixpro/c_pixpro_t1_64_in.npz")
    published = authors_state.published(given)
    state = collections.OrderedDict((n, torch.tensor(np.asarray(v))) for n, v in published["model"].items())
    for legacy in (True, False):
        tree = {"opt": argparse.Namespace(**published["opt"]), "model": state}
        torch.save(tree, tmp_path / "theirs.pth", _use_new_zipfile_serialization=not legacy)
        folder = tmp_path / f"ours{legacy}"
        convert.convert(str(tmp_path / "theirs.pth"), str(folder))
        assert_the_authors_numbers(golden, "pixpro_t1_64", folder)
        convert.convert(str(folder), str(tmp_path / "again.pth"))
        again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
        for name in (n for n in state if "num_batches" not in n):
            assert torch.equal(again[name], state[name]), name


def test_files_of_something_else_are_refused_with_what_they_lack(golden, tmp_path):
    published = authors_state.published(golden("pixpro/c_pixpro_t1_64_in.npz"))
    weights = published["model"]

    def without(*parts):
        return {"model": {n: v for n, v in weights.items() if not n.startswith(parts)}}

    block = "module.encoder.layer2.0.conv2.weight"
    for tree, words in [
        ({1: np.zeros(3, "f4")}, "one dict of weights by name is needed. Received 0"),
        ({"model": {**weights, "module.encoder.conv1.weight": np.array(1.0)}}, "a ResNet has conv1.weight"),
        ({**published, "opt": [1]}, "its options must be a namespace. Received list"),
        ({**published, "opt": {"weight_decay": None}}, "its option weight_decay must be of float. Received None"),
        ({**published, "opt": {"num_instances": "many"}}, "its option num_instances must be of int. Received 'many'"),
        ({"net": 1}, "one dict of weights by name is needed. Received 0"),
        ([1, 2], "Received 0.*Save a state_dict"),
        ({"model": {"cls_token": np.zeros((1, 1, 8), "f4")}}, "Received weights of none among 1 such as 'cls_token'"),
        (without("module.projector."), "have projector.linear1 and projector.linear2"),
        (without("module.encoder_k.", "module.projector_k."), r"encoder_k\.conv1\.weight is missing; .* more"),
        (without("module.encoder.layer3"), "a ResNet has conv1.weight and layer1 to layer4"),
        ({"model": {**weights, block: weights[block][:, :3]}}, r"encoder\.layer2\.0\.conv2\.weight is \[16, 3, 3, 3\]"),
        ({**published, "optimizer": {"state": {}}}, "optimizer must hold state and param_groups"),
        ({"model": {**weights, "module.queue": np.zeros(3, "f4")}}, "queue has no place in the model"),
        (
            {"model": {**weights, "module.encoder.bn1.bias": np.full(8, np.inf, "f4")}},
            "bn1.bias holds numbers that are not finite",
        ),
    ]:
        pth.write(tmp_path / "file.pth", tree)
        with pytest.raises(ValueError, match=words) as error:
            convert.convert(str(tmp_path / "file.pth"), str(tmp_path / "ours"))
        assert "file.pth" in str(error.value) and not (tmp_path / "ours").exists()


def test_other_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Received .*nothing\.pth"):
        convert.convert(str(tmp_path / "nothing.pth"), str(tmp_path / "ours"))
    with pytest.raises(FileNotFoundError, match=r"the --workdir of a run, with a checkpoint and config\.json"):
        convert.convert(str(tmp_path), str(tmp_path / "out.pth"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(ValueError, match="which holds something"):
        convert.convert(str(tmp_path / "nothing.pth"), str(tmp_path / "full"))
    (tmp_path / "text.pth").write_text("quota exceeded")
    command = [
        sys.executable,
        "-m",
        "experiments.convert",
        f"--input={tmp_path / 'text.pth'}",
        f"--output={tmp_path / 'x'}",
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith("convert: ") and "text that begins 'quota" in run.stderr
