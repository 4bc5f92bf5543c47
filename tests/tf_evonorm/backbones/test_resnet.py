"""ResNet v1.5 against the authors' PyTorch networks, and its place in Keras and Model Garden."""

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm import backbones

GOLDEN = {"r50": dict(depth=50), "r18": dict(depth=18), "r50_16s": dict(depth=50, output_stride=16)}
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def variables_by_torch_key(model):
    """PyTorch state-dict key -> Keras variable, for every variable of a ResNet with BatchNorm."""
    found = {}
    for variable in model.variables:
        layer, kind = variable.name.split(":")[0].split("/")[-2:]
        torch_kind = {"kernel": "weight", **{keras: torch for torch, keras in NORM.items()}}[kind]
        found[f"{layer}.{torch_kind}"] = variable
    return found


def load_state(model, archive, prefix):
    """Assigns the arrays `prefix/<torch key>` of an archive and checks that every one finds its place."""
    variables = variables_by_torch_key(model)
    keys = {name[len(prefix) :] for name in archive.files if name.startswith(prefix)}
    assert {key for key in keys if not key.endswith("num_batches_tracked")} == set(variables)
    for key, variable in variables.items():
        value = archive[prefix + key]
        variable.assign(np.transpose(value, (2, 3, 1, 0)) if value.ndim == 4 else value)


@pytest.fixture(params=["float32", "float64"])
def floatx(request):
    tf.keras.backend.set_floatx(request.param)
    yield request.param
    tf.keras.backend.set_floatx("float32")


@pytest.mark.parametrize("case", GOLDEN)
def test_equals_the_authors_network(golden, floatx, case):
    archive = golden("pixpro/c_encoder_pyramids.npz")
    model = backbones.resnet(**GOLDEN[case], width=1 / 16)
    load_state(model, archive, f"{case}/state/")
    images = (np.transpose(archive[f"{case}/im_u8"], (0, 2, 3, 1)).astype(floatx) - 127.5) / 64
    tolerance = 1e-10 if floatx == "float64" else 3e-4  # the training batch has 12 values per channel at the last level
    for mode in ("eval", "train"):
        levels = model(images, training=mode == "train")
        for level in "2345":
            wanted = np.transpose(archive[f"{case}/{mode}/c{level}"], (0, 2, 3, 1))
            error = np.abs(levels[level].numpy() - wanted).max() / np.abs(wanted).max()
            assert error < tolerance, (mode, level, error)
    variables = variables_by_torch_key(model)
    for key in [k.split("after_train/")[1] for k in archive.files if k.startswith(f"{case}/after_train/")]:
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_allclose(
                variables[key].numpy(),
                archive[f"{case}/after_train/{key}"],
                rtol=tolerance,
                atol=tolerance,
                err_msg=key,
            )
