"""Single files of weights: read by the libraries of their formats, and what does not fit is refused whole."""

import sys

import h5py
import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm.backbones import resnet
from tf_evonorm.mistakes import Mistake
from tf_pixpro.checkpoints import load_backbone, save_backbone

safetensors = pytest.importorskip("safetensors.numpy", reason="needs the extra `safetensors`")
ENDINGS = (".safetensors", ".weights.h5")


def encoder(seed=0, depth=18, width=0.125, **options):
    """A small encoder whose every variable, statistics too, is drawn from the seed."""
    model = resnet(depth, width=width, **options)
    generator = np.random.default_rng(seed)
    model.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in model.weights])
    return model


def unnamed(seed):
    """Layers that Keras names, each time otherwise."""
    images = tf.keras.Input((None, None, 3))
    features = tf.keras.layers.DepthwiseConv2D(3)(tf.keras.layers.Conv2D(4, 3)(images))
    model = tf.keras.Model(images, {"5": tf.keras.layers.BatchNormalization()(features)})
    generator = np.random.default_rng(seed)
    model.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in model.weights])
    return model


@pytest.mark.parametrize("make", [encoder, unnamed])
@pytest.mark.parametrize("ending", ENDINGS)
def test_round_trip(make, ending, tmp_path):
    saved, other = make(seed=0), make(seed=1)
    path = save_backbone(saved, str(tmp_path / "deep" / f"backbone{ending}"))
    assert load_backbone(other, path) == path
    for got, want in zip(other.get_weights(), saved.get_weights()):
        np.testing.assert_array_equal(got, want)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == [f"backbone{ending}"]


def test_the_library_safetensors_reads_the_weights_by_their_names(tmp_path):
    model = encoder()
    arrays = safetensors.load_file(save_backbone(model, str(tmp_path / "backbone.safetensors")))
    assert len(arrays) == len(model.weights)
    np.testing.assert_array_equal(arrays["conv1/kernel"], model.get_layer("conv1").kernel.numpy())
    np.testing.assert_array_equal(arrays["layer1.0.bn1/moving_mean"], model.get_layer("layer1.0.bn1").moving_mean)


def test_files_of_other_writers_are_read_by_name(tmp_path):
    model, other = encoder(seed=0), encoder(seed=1)
    arrays = safetensors.load_file(save_backbone(model, str(tmp_path / "ours.safetensors")))
    safetensors.save_file(arrays, tmp_path / "theirs.safetensors")  # without our list of layers
    load_backbone(other, str(tmp_path / "theirs.safetensors"))
    for got, want in zip(other.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(got, want)


def test_keras_reads_and_writes_the_same_h5(tmp_path):
    model, other = encoder(seed=0), encoder(seed=1)
    other.load_weights(save_backbone(model, str(tmp_path / "ours.weights.h5")))
    again = encoder(seed=2)
    other.save_weights(str(tmp_path / "theirs.weights.h5"))
    load_backbone(again, str(tmp_path / "theirs.weights.h5"))
    for got, want in zip(again.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"depth": 34}, " is missing"),
        ({"width": 0.25}, r" is \[(7, 7, 3, )?16\] float32, but \S+ in the file is \[(7, 7, 3, )?8\]"),
        ({"blocks": (1, 1, 1, 1)}, " is not in the encoder"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(ending, options, rule, tmp_path):
    path = save_backbone(encoder(seed=0), str(tmp_path / f"backbone{ending}"))
    other = encoder(seed=1, **options)
    before = other.get_weights()
    with pytest.raises(ValueError, match=rule):
        load_backbone(other, path)
    for weight, old in zip(other.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("damage", ["half", "empty", "other"])
def test_a_damaged_file_is_refused(ending, damage, tmp_path):
    file = tmp_path / f"backbone{ending}"
    save_backbone(encoder(seed=0), str(file))
    data = file.read_bytes()
    file.write_bytes({"half": data[: len(data) // 2], "empty": b"", "other": b"\x80\x04no weights" * 9}[damage])
    other = encoder(seed=1)
    before = other.get_weights()
    with pytest.raises(Mistake, match=r"must be a complete .* Reading it gave: "):
        load_backbone(other, str(file))
    for weight, old in zip(other.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


def test_an_h5_file_of_something_else_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file["numbers"] = np.arange(3)
    with pytest.raises(ValueError, match=r"layers/.* is missing; .* more"):
        load_backbone(encoder(), str(tmp_path / "x.weights.h5"))


def test_wrong_calls_are_refused(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="at which there is none"):
        load_backbone(encoder(), str(tmp_path / "nowhere.safetensors"))
    parts = unnamed(0)
    parts.checkpoint_items = {"backbone": parts, "decoder": parts}
    with pytest.raises(ValueError, match="of the parts backbone, decoder"):
        save_backbone(parts, str(tmp_path / "backbone.weights.h5"))
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(Mistake, match="pip install safetensors"):
        save_backbone(unnamed(0), str(tmp_path / "backbone.safetensors"))
    assert not list(tmp_path.iterdir())
