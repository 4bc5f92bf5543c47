"""ResNet v1.5 against the authors' PyTorch networks, and its place in Keras and Model Garden."""

import contextlib
import functools

import numpy as np
import pytest
import tensorflow as tf
from reference_weights import copy_layers, double_precision, largest_error, randomize

from tf_evonorm import backbones
from tf_evonorm.layers.baselines import BatchNormAct

GOLDEN = {"r50": dict(depth=50), "r18": dict(depth=18), "r50_16s": dict(depth=50, output_stride=16)}
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def variables_by_torch_key(model):
    """PyTorch state-dict key -> Keras variable, for every variable of a ResNet with BatchNorm."""
    found = {}
    for variable in model.variables:
        layer, kind = getattr(variable, "path", variable.name).split(":")[0].split("/")[-2:]  # Keras 3, 2
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


@pytest.mark.parametrize("floatx", ["float32", "float64"])
@pytest.mark.parametrize("case", GOLDEN)
def test_equals_the_authors_network(golden, floatx, case):
    archive = golden("pixpro/c_encoder_pyramids.npz")
    with double_precision() if floatx == "float64" else contextlib.nullcontext():
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


PUBLISHED = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}  # torchvision's table


@pytest.mark.parametrize("depth", [d if d in (18, 50) else pytest.param(d, marks=pytest.mark.slow) for d in PUBLISHED])
def test_published_sizes(depth):
    model = backbones.resnet(depth)
    classifier = 1000 * model.output_specs["5"][-1] + 1000
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) + classifier == PUBLISHED[depth]


def model_garden_name(model, reference):
    """Name of our layer -> layer of Model Garden's ResNet with bottlenecks."""
    renamed = {"conv1": reference.get_layer("conv2d"), "bn1": reference.get_layer("batch_normalization")}
    blocks = [layer for layer in reference.layers if type(layer).__name__ == "BottleneckBlock"]
    places = [(level, repeat) for level, repeats in enumerate((3, 4, 6, 3), start=1) for repeat in range(repeats)]
    for (level, repeat), block in zip(places, blocks):
        name = f"layer{level}.{repeat}"
        for part in "123":
            renamed[f"{name}.conv{part}"] = getattr(block, f"_conv{part}")
            renamed[f"{name}.bn{part}"] = getattr(block, f"_norm{part}")
        if repeat == 0:
            renamed[f"{name}.downsample.0"], renamed[f"{name}.downsample.1"] = block._shortcut, block._norm0
    return renamed


def test_equals_model_garden_with_its_padding_and_epsilon():
    garden = pytest.importorskip("official.vision.modeling.backbones.resnet")
    tf.keras.backend.clear_session()
    norm_act = functools.partial(BatchNormAct, epsilon=1e-3, momentum=0.99)
    with double_precision():
        reference = garden.ResNet(50, depth_multiplier=0.25)
        model = backbones.resnet(50, norm_act, width=0.25, padding="same")
    randomize(reference)
    copy_layers(reference, model, model_garden_name(model, reference))
    images = np.random.default_rng(1).normal(size=(2, 96, 80, 3))
    wanted, found = reference(images, training=False), model(images, training=False)
    for level in "2345":
        assert largest_error(found[level], wanted[level]) < 1e-12
    assert model.output_specs == reference.output_specs


def test_initial_values():
    """Kernels are normal with deviation sqrt(2 / (k k out)); the last gamma of each branch is 0, all others 1."""
    model = backbones.resnet(50)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.Conv2D):
            kernel = layer.kernel.numpy()
            wanted = np.sqrt(2 / (kernel.shape[0] ** 2 * kernel.shape[-1]))
            count = kernel.size
            assert abs(kernel.std() / wanted - 1) < 5 / np.sqrt(2 * count), layer.name
            assert np.abs(kernel).max() > 2.5 * wanted, layer.name  # not truncated
        elif layer.weights:
            last = layer.name.startswith("layer") and layer.name.endswith("bn3")
            np.testing.assert_array_equal(layer.gamma, 0 if last else 1, err_msg=layer.name)


def test_levels_and_output_strides():
    model = backbones.resnet(18, width=1 / 8)
    shapes = {level: tuple(features.shape) for level, features in model(np.ones((1, 70, 33, 3), "float32")).items()}
    assert shapes == {"2": (1, 18, 9, 8), "3": (1, 9, 5, 16), "4": (1, 5, 3, 32), "5": (1, 3, 2, 64)}
    assert {level: spec.as_list() for level, spec in model.output_specs.items()} == {
        level: [None, None, None, shape[-1]] for level, shape in shapes.items()
    }
    model = backbones.resnet(18, width=1 / 8, output_stride=8, input_size=(64, 64, 3))
    assert [model.output_specs[level][1] for level in "2345"] == [16, 8, 8, 8]
    model = backbones.resnet(18, width=1 / 8, stem="small", input_size=(32, 32, 3), blocks=(1, 1, 1, 1))
    assert [model.output_specs[level][1] for level in "2345"] == [32, 16, 8, 4]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(depth=20), r"depth must be one of .* Received depth=20"),
        (dict(stem="cifar"), r"stem must be .* Received stem='cifar'"),
        (dict(output_stride=4), r"output_stride must be .* Received output_stride=4"),
        (dict(width=0.01), r"width must leave a channel in the stem. Received width=0.01"),
        (dict(blocks=(1, 2, 0)), r"blocks must be up to four positive counts. Received blocks=\(1, 2, 0\)"),
        (dict(padding="valid"), r"padding must be one of .* Received padding='valid'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        backbones.resnet(**arguments)
