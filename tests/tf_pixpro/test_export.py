"""SavedModels of encoders: the same features as the encoder's, wherever they are loaded, whatever they are sent."""

import io
import json
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tf_pixpro
from tf_pixpro.checkpoints import load_backbone, save_backbone
from tf_pixpro.export import export_encoder


def encoder(seed=0):
    """Two levels, quick to compile."""
    tf.keras.utils.set_random_seed(seed)
    images = tf.keras.Input((None, None, 3))
    level4 = tf.keras.layers.Conv2D(8, 5, strides=16, padding="same")(images)
    level4 = tf.keras.layers.ReLU()(tf.keras.layers.BatchNormalization()(level4))
    level5 = tf.keras.layers.BatchNormalization()(tf.keras.layers.Conv2D(16, 3, strides=2, padding="same")(level4))
    return tf.keras.Model(images, {"4": level4, "5": level5})


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [height, width, 3], np.uint8)


def normalised(images):
    """What pre-training feeds the encoder, in NumPy float64: PixPro's ImageNet mean and deviation (pixpro.md 1.12)."""
    return ((np.asarray(images, np.float64) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)


@pytest.fixture(scope="module")
def trained():
    """A pretext model after one step, so that statistics have moved."""
    head = tf_pixpro.ProjectionHead(hidden=16, features=8)
    model = tf_pixpro.PixPro(encoder(), projection=head, propagation=tf_pixpro.PixelPropagation())
    model.compile(tf_pixpro.LARS(0.1), run_eagerly=True)
    views = normalised(np.random.default_rng(0).integers(0, 256, [2, 64, 64, 3]))
    box = tf.constant([[0.0, 0.0, 1.0, 1.0]] * 2)
    batch = {"view1": views, "view2": views[:, ::-1], "box1": box, "box2": tf.gather(box, [0, 3, 2, 1], axis=1)}
    model.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
    return model


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    return export_encoder(trained, str(tmp_path_factory.mktemp("export") / "saved_model"), image_size=(64, 96))


def assert_features(answer, expected):
    assert answer.keys() == {*expected, "pooled"}
    for level, values in expected.items():
        np.testing.assert_allclose(answer[level], values, rtol=1e-4, atol=1e-5, err_msg=level)
    np.testing.assert_allclose(answer["pooled"], np.mean(expected["5"], axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_both_signatures_answer_as_the_encoder(trained, saved):
    served = tf.saved_model.load(saved).signatures
    images = np.stack([picture(64, 96, seed) for seed in range(2)])
    expected = trained.encoder(normalised(images), training=False)
    assert_features(served["images"](images=tf.constant(images, tf.float32)), expected)
    files = [tf.io.encode_png(image) for image in images]
    assert_features(served["serving_default"](image_bytes=tf.stack(files)), expected)


def test_images_of_any_size_are_covered_and_cut(trained, saved):
    served = tf.saved_model.load(saved).signatures["serving_default"]
    wide, tall = picture(64, 160), picture(128, 96)
    files = tf.stack([tf.io.encode_png(wide), tf.io.encode_png(tall), tf.io.encode_jpeg(picture(31, 500))])
    answer = served(image_bytes=files)
    expected = trained.encoder(normalised([wide[:, 32:128], tall[32:96]]), training=False)
    assert_features({level: values[:2] for level, values in answer.items()}, expected)
    assert answer["5"].shape == [3, 2, 3, 16]


@pytest.mark.parametrize("bad", [b"", b"not an image", "cut"])
def test_bytes_that_are_no_image_fail_their_request_only(saved, bad):
    served = tf.saved_model.load(saved).signatures["serving_default"]
    good = tf.io.encode_jpeg(picture(80, 80)).numpy()
    before = served(image_bytes=tf.constant([good]))["pooled"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        served(image_bytes=tf.constant([good, good[: len(good) // 2] if bad == "cut" else bad]))
    np.testing.assert_array_equal(served(image_bytes=tf.constant([good]))["pooled"], before)


def test_grey_palette_and_animated_files(saved):
    served = tf.saved_model.load(saved).signatures["serving_default"]
    image = Image.fromarray(picture(70, 70))
    files = []
    for mode, form in (
        ("L", "png"),
        ("P", "png"),
        ("RGBA", "png"),
        ("L", "jpeg"),
        ("CMYK", "jpeg"),
        ("P", "gif"),
        ("RGB", "bmp"),
    ):
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, form)
        files.append(buffer.getvalue())
    assert served(image_bytes=tf.constant(files))["pooled"].shape == [len(files), 16]


def test_a_fresh_process_without_the_packages_gives_the_same(trained, tmp_path):
    """The whole chain: a step of pre-training -> backbone checkpoint -> a new encoder -> SavedModel -> another
    process."""
    other = encoder(seed=1)
    load_backbone(other, save_backbone(trained.encoder, str(tmp_path / "backbone")))
    export_encoder(other, str(tmp_path / "saved_model"), image_size=(64, 64))
    image = picture(64, 64)
    (tmp_path / "image.png").write_bytes(tf.io.encode_png(image).numpy())
    program = """
        import json, sys
        packages = ("tf_pixpro", "tf_evonorm")
        sys.modules.update(dict.fromkeys(packages))  # Importing them is now an error, installed or not.
        import tensorflow as tf
        served = tf.saved_model.load(sys.argv[1] + "/saved_model").signatures["serving_default"]
        features = served(image_bytes=tf.constant([open(sys.argv[1] + "/image.png", "rb").read()]))
        found = [name for name in sys.modules if name.split(".")[0] in packages and sys.modules[name]]
        lists = {key: value.numpy().tolist() for key, value in features.items()}
        print(json.dumps({"found": found, "features": lists}))
    """
    run = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(program), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout.splitlines()[-1])
    assert answer["found"] == []
    assert_features(answer["features"], trained.encoder(normalised([image]), training=False))


def test_every_source_gives_the_same(trained, saved, tmp_path):
    image = tf.constant(picture(64, 96)[None], tf.float32)
    expected = tf.saved_model.load(saved).signatures["images"](images=image)
    checkpoint = save_backbone(trained.encoder, str(tmp_path / "backbone"))
    trained.save(str(tmp_path / "pretext.keras"))
    trained.encoder.save(str(tmp_path / "encoder.keras"))
    sources = {
        "encoder": (trained.encoder, {}),
        "checkpoint": (checkpoint, {"encoder": encoder(seed=3)}),
        "pretext.keras": (str(tmp_path / "pretext.keras"), {}),
        "encoder.keras": (tmp_path / "encoder.keras", {}),
    }
    for name, (source, options) in sources.items():
        path = export_encoder(source, str(tmp_path / "exports" / name), **options)
        answer = tf.saved_model.load(path).signatures["images"](images=image)
        for key, values in expected.items():
            np.testing.assert_allclose(answer[key], values, rtol=1e-5, atol=1e-6, err_msg=f"{name} {key}")


def test_a_taken_path_is_refused_and_a_failure_leaves_nothing(trained, tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"path must be free\. Received .*taken"):
        export_encoder(trained, str(tmp_path / "taken"))

    def fail(module, path, signatures):
        pathlib.Path(path).mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export_encoder(trained, str(tmp_path / "new"))
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_wrong_sources_are_refused(trained, tmp_path):
    path = str(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"\.keras"):
        export_encoder("nowhere.keras", path)
    with pytest.raises(ValueError, match="Pass encoder="):
        export_encoder("workdir/backbone", path)
    with pytest.raises(ValueError, match="Leave it out"):
        export_encoder(trained, path, encoder=trained.encoder)
    with pytest.raises(ValueError, match="images to a dict of levels"):
        export_encoder(tf.keras.Sequential([tf.keras.layers.Dense(2)]), path)
    with pytest.raises(ValueError, match="both positive"):
        export_encoder(trained, path, image_size=(0, 8))
