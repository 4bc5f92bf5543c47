"""Exports in other formats give the numbers of the SavedModel, in the runtimes that users have for them."""

import importlib
import json
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf

import tf_evonorm
from tf_evonorm.mistakes import Mistake
from tf_pixpro import data, export_encoder, formats, load_backbone
from tf_pixpro.export import export_classifier
from tf_pixpro.views.augment import denormalized, normalized

SIZE = (32, 48)
NORMS = {
    "BatchNorm": tf_evonorm.BatchNormAct,
    "EvoNormS0": lambda: tf_evonorm.EvoNormS0(groups=4),
    "EvoNormB0": tf_evonorm.EvoNormB0,
}


def encoder(norm="BatchNorm", seed=0):
    """Two levels; every variable, statistics too, is drawn from the seed."""
    images = x = tf.keras.Input((None, None, 3))
    levels = {}
    for level, channels in (("4", 8), ("5", 16)):
        x = tf.keras.layers.Conv2D(channels, 3, strides=4, padding="same", use_bias=False)(x)
        x = levels[level] = NORMS[norm]()(x)
    return drawn(tf.keras.Model(images, levels), seed)


def classifier(seed=0):
    backbone = encoder("EvoNormB0")
    pooled = tf.keras.layers.GlobalAveragePooling2D()(backbone.outputs[-1])
    return drawn(tf.keras.Model(backbone.inputs, tf.keras.layers.Dense(3)(pooled)), seed)


def drawn(model, seed):
    random = np.random.default_rng(seed)
    model.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in model.weights])
    return model


def pictures(count=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [count, *SIZE, 3]).astype(np.float32)


def by_onnx(path, images):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images})))


def interpreter(path):
    """LiteRT's, or TensorFlow's own: that of 2.21 gives wrong numbers with its default delegate, XNNPACK."""
    try:
        return importlib.import_module("ai_edge_litert.interpreter").Interpreter(path)
    except ImportError:
        kinds, since = tf.lite.experimental.OpResolverType, tuple(map(int, tf.__version__.split(".")[:2]))
        kind = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if since >= (2, 21) else kinds.AUTO
        return tf.lite.Interpreter(path, experimental_op_resolver_type=kind)


def by_tflite(path, images):
    made = interpreter(path)
    if made.get_input_details()[0]["shape_signature"][0] == -1:
        made.resize_tensor_input(made.get_input_details()[0]["index"], images.shape)
    return made.get_signature_runner()(images=images)


RUNTIMES = {"onnx": by_onnx, "tflite": by_tflite}


@pytest.fixture(params=RUNTIMES)
def graph_format(request):
    if request.param == "onnx":
        pytest.importorskip("tf2onnx", reason="needs the extra `onnx`")
    return request.param


def assert_close(answer, wanted):
    assert set(answer) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(answer[name], values, rtol=1e-4, atol=1e-4, err_msg=name)


CASES = [("BatchNorm", None), ("BatchNorm", 2), ("EvoNormS0", None), ("EvoNormS0", 2), ("EvoNormB0", None)]


@pytest.mark.parametrize(("norm", "batch"), CASES)
def test_graphs_of_encoders_give_the_features_of_the_saved_model(graph_format, norm, batch, tmp_path):
    model, images = encoder(norm), pictures()
    saved = export_encoder(model, str(tmp_path / "saved_model"), image_size=SIZE)
    wanted = tf.saved_model.load(saved).signatures["images"](images=tf.constant(images))
    path = export_encoder(
        model, str(tmp_path / "new" / f"m.{graph_format}"), image_size=SIZE, format=graph_format, batch=batch
    )
    assert_close(RUNTIMES[graph_format](path, images), wanted)
    if batch is None:
        one = RUNTIMES[graph_format](path, images[:1])
        assert_close(one, {name: values[:1] for name, values in wanted.items()})
    assert [file.name for file in (tmp_path / "new").iterdir()] == [f"m.{graph_format}"]


@pytest.mark.parametrize("batch", [None, 2])
def test_graphs_of_classifiers_hold_their_class_names(graph_format, batch, tmp_path):
    model, images, options = classifier(), pictures(), {"class_names": ("cat", "dog", "emu"), "image_size": SIZE}
    saved = export_classifier(model, str(tmp_path / "saved_model"), **options)
    wanted = tf.saved_model.load(saved).signatures["images"](images=tf.constant(images))
    path = export_classifier(model, str(tmp_path / f"m.{graph_format}"), format=graph_format, batch=batch, **options)
    assert_close(RUNTIMES[graph_format](path, images), {name: wanted[name] for name in ("probabilities", "label")})
    if graph_format == "onnx":
        entries = {entry.key: entry.value for entry in importlib.import_module("onnx").load(path).metadata_props}
        assert json.loads(entries["class_names"]) == ["cat", "dog", "emu"]
    else:
        assert zipfile.ZipFile(path).read("labels.txt").decode().split() == ["cat", "dog", "emu"]


@pytest.mark.parametrize("norm", NORMS)
def test_keras_and_safetensors_files_hold_the_encoder(norm, tmp_path):
    model, images = encoder(norm), pictures()
    saved = export_encoder(model, str(tmp_path / "saved_model"))
    wanted = dict(tf.saved_model.load(saved).signatures["images"](images=tf.constant(images)))
    del wanted["pooled"]
    again = tf.keras.models.load_model(export_encoder(model, str(tmp_path / "m.keras"), format="keras"))
    assert_close(again(normalized(images), training=False), wanted)
    pytest.importorskip("safetensors", reason="needs the extra `safetensors`")
    other = encoder(norm, seed=1)
    load_backbone(other, export_encoder(model, str(tmp_path / "m.safetensors"), format="safetensors"))
    assert_close(other(normalized(images), training=False), wanted)


def test_a_keras_file_holds_the_classifier(tmp_path):
    model, images = classifier(), normalized(pictures())
    path = export_classifier(model, str(tmp_path / "m.keras"), class_names="abc", format="keras")
    np.testing.assert_allclose(tf.keras.models.load_model(path)(images), model(images), rtol=1e-5)


@pytest.mark.parametrize("norm", ["BatchNorm", "EvoNormS0"])
def test_integers_of_eight_bits_are_near_and_smaller(norm, tmp_path):
    model, images = encoder(norm), pictures(8)
    rows = tf.data.Dataset.from_tensors({"image": normalized(images), "label": np.zeros(8)})
    plain, small = (
        export_encoder(model, str(tmp_path / f"{name}.tflite"), image_size=SIZE, format="tflite", **options)
        for name, options in (("float", {}), ("int8", {"representative": rows}))
    )
    wanted, got = by_tflite(plain, images)["pooled"], by_tflite(small, images)["pooled"]
    assert 0 < np.abs(got - wanted).max() < 0.1 * np.ptp(wanted)
    details = interpreter(small).get_tensor_details()
    kernels = [row for row in details if tuple(row["shape"]) in ((8, 3, 3, 3), (16, 3, 3, 8))]
    assert kernels and {row["dtype"] for row in kernels} == {np.int8}
    np.testing.assert_allclose(denormalized(normalized(images)), images, atol=1e-3)


def test_what_cannot_be_written_says_so_in_one_line(tmp_path, monkeypatch):
    model, path = encoder(), str(tmp_path / "model")
    rows = tf.data.Dataset.from_tensors({"image": normalized(pictures())})
    for options, rule in (
        ({"format": "pb"}, "must be one of saved_model, onnx, tflite, keras, safetensors"),
        ({"format": "tflite"}, r"must end in \.tflite"),
        ({"path": f"{path}.keras", "format": "keras", "batch": 2}, "for onnx and tflite"),
        ({"path": f"{path}.tflite", "format": "tflite", "batch": 0}, "a positive number"),
        ({"path": f"{path}.keras", "format": "keras", "representative": rows}, "are for tflite"),
        ({"batch": 2}, "for other formats than saved_model"),
        (
            {"path": f"{path}.tflite", "format": "tflite", "image_size": SIZE, "representative": rows.take(0)},
            "at least 1 representative",
        ),
    ):
        with pytest.raises(ValueError, match=rule):
            export_encoder(model, **{"path": path, **options})
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(Mistake, match=r"pip install 'tf-pixpro\[onnx\]'"):
        export_encoder(model, f"{path}.onnx", format="onnx")
    (tmp_path / "taken.keras").write_text("mine")
    with pytest.raises(Mistake, match="must be free"):
        export_encoder(model, str(tmp_path / "taken.keras"), format="keras")
    assert [file.name for file in tmp_path.iterdir()] == ["taken.keras"]


def test_an_operation_that_a_format_lacks_is_named_in_one_line(graph_format, tmp_path):
    exported = formats.Exported(encoder(), lambda images: {"root": tf.linalg.sqrtm(images[:, :2, :2, 0])}, SIZE)
    with pytest.raises(Mistake, match="Export a SavedModel") as caught:
        formats.write(graph_format, exported, str(tmp_path / f"m.{graph_format}"))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_integers_of_eight_bits_keep_the_accuracy(shared_data, tmp_path):
    """A narrow ResNet that has seen CIFAR-10 twice: at most one point of test accuracy is lost."""
    tf.keras.utils.set_random_seed(0)
    archive = str(shared_data("cifar10/cifar10_jpeg.zip"))
    train, test = (data.labelled_dataset(data.source(archive, s), (32, 32), 64, margin=1.0) for s in ("train", "test"))
    train, test = train.cache(), test.cache()
    backbone = tf_evonorm.backbones.resnet(18, width=0.25, blocks=(1, 1, 1, 1), stem="small")
    pooled = tf.keras.layers.GlobalAveragePooling2D()(backbone.output["5"])
    model = tf.keras.Model(backbone.inputs, tf.keras.layers.Dense(10)(pooled))
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.05, momentum=0.9), loss)
    rows = train.unbatch().map(lambda row: (row["image"], row["label"])).shuffle(20000, seed=0).batch(64)
    model.fit(rows, epochs=5, verbose=0)
    options = {"class_names": list("0123456789"), "image_size": (32, 32), "format": "tflite"}
    plain = export_classifier(model, str(tmp_path / "float.tflite"), **options)
    small = export_classifier(model, str(tmp_path / "int8.tflite"), representative=train.take(5), **options)
    shares = []
    for path in (plain, small):
        right = [by_tflite(path, denormalized(row["image"]).numpy())["label"] == row["label"] for row in test]
        shares.append(float(np.mean(np.concatenate(right))))
    sizes = [(tmp_path / name).stat().st_size for name in ("float.tflite", "int8.tflite")]
    print(f"accuracy {shares[0]:.4f} float32, {shares[1]:.4f} int8; bytes {sizes}")
    assert shares[0] > 0.4 and shares[1] > shares[0] - 0.01 and sizes[1] < sizes[0] / 2
