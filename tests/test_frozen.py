"""Files of earlier versions: each is loaded by today's code, and gives what the version that wrote it computed."""

import importlib.util
import json
import pathlib
import zipfile

import numpy as np
import pytest
import stack
import tensorflow as tf

import tf_evonorm
import tf_pixpro

FROZEN = pathlib.Path(__file__).resolve().parent / "frozen"
KERAS = "keras3" if stack.KERAS_3 else "keras2"
GENERATIONS = sorted(FROZEN.glob(f"*-{KERAS}.zip"))
specification = importlib.util.spec_from_file_location("frozen_write", FROZEN / "write.py")
write = importlib.util.module_from_spec(specification)
specification.loader.exec_module(write)


def _entries(*kinds):
    """(generation, name) of every entry of those kinds, as parameters of a test."""
    found = []
    for path in GENERATIONS:
        with zipfile.ZipFile(path) as file:
            manifest = json.loads(file.read("manifest.json"))
        found += [(path.stem, name) for name, entry in manifest.items() if entry["kind"] in kinds]
    return pytest.mark.parametrize(("generation", "name"), found, ids=["-".join(pair) for pair in found])


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """`frozen(generation, name)` -> (folder of the generation, the entry, what it should give)."""
    folders = {}

    def entry(generation, name):
        if generation not in folders:
            folders[generation] = tmp_path_factory.mktemp(generation)
            with zipfile.ZipFile(FROZEN / f"{generation}.zip") as file:
                file.extractall(folders[generation])
        folder = folders[generation]
        expected = np.load(folder / "expected.npz")
        numbers = [key for key in expected.files if key.rpartition("/")[0] == name]
        wanted = [expected[f"{name}/{number}"] for number in range(len(numbers))]
        return folder, json.loads((folder / "manifest.json").read_text())[name], wanted

    return entry


def _same(got, wanted, tolerance=1e-4):
    assert len(got) == len(wanted)
    for a, b in zip(write.sampled(got), wanted):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1e-3, np.abs(b).max()))


def test_there_is_a_generation():
    assert GENERATIONS


@_entries("keras")
def test_keras_files(frozen, generation, name):
    folder, entry, wanted = frozen(generation, name)
    model = tf.keras.models.load_model(folder / f"{name}.keras")
    _same(write.answers(model, entry["inputs"]), wanted)


@_entries("layer_checkpoint")
def test_checkpoints_of_layers(frozen, generation, name):
    folder, entry, wanted = frozen(generation, name)
    registered = tf.keras.utils.get_registered_object
    kind = registered(f"tf_evonorm>{entry['class']}") or registered(f"tf_pixpro>{entry['class']}")
    layer = kind.from_config(entry["config"])
    layer.build((None, None, None, 8))
    status = tf.train.Checkpoint(**{entry["item"]: layer}).read(str(folder / entry["file"])).expect_partial()
    got = [np.asarray(weight) for weight in layer.weights]
    if generation == "0.1.0-keras3" and entry["item"] == "graphlayer":
        # Version 0.1.0 left out what Keras 3 keeps in a dict: the moving statistic starts again.
        (statistic,) = [i for i, weight in enumerate(layer.weights) if "moving" in weight.name]
        np.testing.assert_array_equal(got.pop(statistic), np.ones(8))
        del wanted[statistic]
    else:
        status.assert_existing_objects_matched()
    _same(got, wanted, 0)


@_entries("backbone")
def test_backbone_files(frozen, generation, name):
    folder, entry, wanted = frozen(generation, name)
    encoder = tf_evonorm.backbones.resnet(**entry["arguments"])
    tf_pixpro.load_backbone(encoder, str(folder / "backbone"))
    _same(write.answers(encoder, entry["inputs"]), wanted)


@_entries("pretext")
def test_pretext_models(frozen, generation, name):
    """From the `.keras` file; and its checkpoint, read over other weights."""
    folder, entry, wanted = frozen(generation, name)
    model = tf.keras.models.load_model(folder / f"{name}.keras")
    _same(write.losses(model), wanted)
    # Version 0.1.0 left out what Keras 3 keeps in a list: the layers inside the pixel propagation.
    left_out = model.propagation.weights if generation == "0.1.0-keras3" and model.propagation is not None else []
    for weight in model.weights:
        if not any(weight is other for other in left_out):
            weight.assign(tf.zeros_like(weight))
    status = tf.train.Checkpoint(model=model).read(str(folder / entry["checkpoint"])).expect_partial()
    if not left_out:
        status.assert_existing_objects_matched()
    _same(write.losses(model), wanted)


@_entries("fit")
def test_compiled_models(frozen, generation, name):
    """The optimizer's momentum, step and schedule: one more step gives the same weights."""
    folder, _, wanted = frozen(generation, name)
    _same(write.one_step(tf.keras.models.load_model(folder / f"{name}.keras")), wanted)


@_entries("served")
def test_exports(frozen, generation, name):
    folder, _, wanted = frozen(generation, name)
    _same(write.signature(str(folder / name)), wanted)


@_entries("saved_model")
def test_saved_models(frozen, generation, name):
    folder, entry, wanted = frozen(generation, name)
    model = tf.keras.models.load_model(folder / name, compile=False)
    _same(write.answers(model, entry["inputs"]), wanted)


@_entries("graph")
def test_graphs(frozen, generation, name):
    folder, entry, wanted = frozen(generation, name)
    layer = tf_evonorm.layer_from_graph(str(folder / "graph.json"))()
    _same(write.answers(layer, entry["inputs"]), wanted)


@_entries("run")
def test_configs_of_runs(frozen, generation, name):
    from experiments.launch import session

    folder, entry, _ = frozen(generation, name)
    config = session.recorded(str(folder / entry["folder"]))
    assert config.seed == 0 and ("runtime" in config) == (name != "run-search")


@_entries("study")
def test_studies(frozen, generation, name):
    """The database gives the same records; the same study may be opened again, other settings are refused."""
    folder, entry, _ = frozen(generation, name)
    records = write.study(f"sqlite:///{folder}/study.db").records()
    assert [[record.number, str(record.graph), record.state, list(record.scores or ())] for record in records] == entry[
        "records"
    ]
    with pytest.raises(ValueError, match="Received"):
        write.study(f"sqlite:///{folder}/study.db", seed=1)


@pytest.mark.slow
@_entries("run")
def test_runs_are_exported(frozen, generation, name, tmp_path):
    """What a run of that version has trained, by today's export from its folder alone."""
    from experiments.export import export

    folder, entry, wanted = frozen(generation, name)
    if not wanted:
        pytest.skip("this run has no images in, numbers out")
    export(str(tmp_path / "served"), workdir=str(folder / entry["folder"]))
    _same(write.signature(str(tmp_path / "served"), entry["side"]), wanted)
