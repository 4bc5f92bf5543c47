"""The synthesis binary: its recipes, pictures and SavedModel; a run that is judged by a classifier, resumed and
served."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from experiments import classify, synthesize
from experiments.builders import generator
from experiments.export import export
from experiments.gan.export import export_generator
from experiments.gan.samples import SamplePictures, grid
from experiments.launch import session
from tf_pixpro import data
from tf_pixpro.views.augment import centre_view

CONFIGS = ["biggan_32_cifar10", "biggan_deep_128_imagenet"]
NAMES = ["cat", "dog", "owl"]


def config_of(name, variant="", program="synthesize"):
    return importlib.import_module(f"experiments.configs.{program}.{name}").get_config(variant)


def small_generator():
    z, label = tf.keras.Input([5], name="latent"), tf.keras.Input([], dtype="int64", name="label")
    x = tf.keras.layers.Concatenate()([z, tf.keras.layers.Embedding(3, 4)(label)])
    x = tf.keras.layers.Dense(4 * 6 * 3, activation="tanh")(x)
    return tf.keras.Model([z, label], tf.keras.layers.Reshape([4, 6, 3])(x))


def test_the_recipe_for_imagenet():
    """As far as BigGAN's paper is known: batch 2048, Adam without momentum, two discriminator steps, averages of
    0.9999."""
    config = config_of("biggan_deep_128_imagenet")
    assert (config.schedule.batch, config.training.discriminator_steps, config.training.average_decay) == (
        2048,
        2,
        0.9999,
    )
    first, second = generator.optimizers(config)
    assert [float(o.learning_rate) for o in (first, second)] == pytest.approx([5e-5, 2e-4])
    assert (first.beta_1, first.beta_2) == (0.0, 0.999)


@pytest.mark.parametrize("name", CONFIGS)
def test_batches_are_functions_of_their_number(name):
    config = config_of(name, "smoke")
    source = session.build(data.source, "source", config.source)
    first, second = list(generator.batches(config, source).take(2))
    (again,) = list(generator.batches(config, source, start_step=1).take(1))
    side, batch = config.images.size, config.schedule.batch * config.training.discriminator_steps
    assert first["image"].shape == (batch, side, side, 3) and first["latent"].shape == (batch, 2, 8)
    assert -1 <= np.min(first["image"]) < np.max(first["image"]) <= 1
    assert set(np.unique(first["other_label"])) <= set(range(len(source.class_names)))
    for key in first:
        np.testing.assert_array_equal(second[key], again[key])
        assert np.any(first[key] != second[key])


def test_colours_are_those_of_the_file():
    pixels = np.random.default_rng(0).integers(0, 256, [8, 8, 3]).astype("uint8")
    view = centre_view(tf.io.encode_png(pixels), (8, 8), 1.0)
    np.testing.assert_allclose(generator.coloured(view), pixels / 127.5 - 1, atol=1e-5)


def test_a_grid_has_each_image_in_its_place():
    images = np.arange(6, dtype="float32")[:, None, None, None] * np.ones([1, 2, 3, 3], "float32") / 127.5 - 1
    picture = grid(images, columns=3)
    assert picture.shape == (6, 12, 3) and picture.dtype == np.uint8
    assert picture[0, 0, 0] == 0 and picture[0, 4, 0] == 1 and picture[3, 8, 2] == 5 and picture[2].max() == 0


def test_pictures_are_written_at_intervals_and_at_the_end(tmp_path):
    step = tf.Variable(0)
    draw = SamplePictures(small_generator(), 3, str(tmp_path), step, every=10, steps=25, rows=2, columns=4)
    for now in (5, 10, 25):
        step.assign(now)
        draw()
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {f"{kind}-{at}.png" for kind in ("samples", "interpolation") for at in (10, 25)}
    picture = tf.io.decode_png(tf.io.read_file(str(tmp_path / "samples-10.png")))
    assert picture.shape == (2 * 5, 4 * 7, 3)
    summaries = [
        value.tag
        for file in tmp_path.glob("events.*")
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    ]
    assert sorted(summaries) == ["interpolation"] * 2 + ["samples"] * 2


ALONE = """
import sys, numpy as np, tensorflow as tf
served = tf.saved_model.load(sys.argv[1])
sample = served.signatures["sample"]
def draw(seed, count, truncation):
    labels = tf.zeros([count], tf.int64)
    return sample(seed=tf.constant(seed, tf.int64), label=labels, truncation=tf.constant(truncation))
np.save(sys.argv[2], draw(3, 4, 1.0)["images"])
assert not [name for name in sys.modules if name.split(".")[0] in ("tf_evonorm", "tf_pixpro", "experiments")]
"""


@pytest.mark.slow
def test_the_export_answers_in_a_fresh_process(tmp_path):
    export_generator(small_generator(), str(tmp_path / "served"), NAMES)
    found = tmp_path / "images.npy"
    command = [sys.executable, "-I", "-c", ALONE, str(tmp_path / "served"), str(found)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    sample = tf.saved_model.load(str(tmp_path / "served")).signatures["sample"]
    here = sample(seed=tf.constant(3, tf.int64), label=tf.zeros([4], tf.int64), truncation=tf.constant(1.0))
    np.testing.assert_array_equal(np.load(found), here["images"])


def test_the_export_and_its_seeds(tmp_path):
    generator = small_generator()
    assert export_generator(generator, str(tmp_path / "served"), NAMES) == str(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served"))
    assert [name.decode() for name in served.class_names.numpy()] == NAMES
    z, label = tf.random.stateless_normal([4, 5], [0, 0]), tf.constant([0, 1, 2, 2], tf.int64)
    images = served.signatures["serving_default"](latent=z, label=label)["images"]
    np.testing.assert_array_equal(images, np.round((generator([z, label]) + 1) * 127.5).astype("uint8"))

    def sample(seed, count, truncation=1.0):
        label = tf.zeros([count], tf.int64)
        answer = served.signatures["sample"](
            seed=tf.constant(seed, tf.int64), label=label, truncation=tf.constant(truncation)
        )
        return answer["images"].numpy()

    four = sample(7, 4)
    np.testing.assert_array_equal(four, sample(7, 4))
    np.testing.assert_array_equal(four[:2], sample(7, 2))
    assert np.any(four != sample(8, 4)) and np.any(four[0] != four[1])
    still = sample(7, 2, 0.0)  # all latents at the centre
    np.testing.assert_array_equal(still[0], still[1])
    with pytest.raises(tf.errors.InvalidArgumentError, match="no such class"):
        served.signatures["serving_default"](latent=z, label=label + 1)
    with pytest.raises(ValueError, match="path must be free"):
        export_generator(generator, str(tmp_path / "served"), NAMES)


def test_mistakes(tmp_path):
    config = config_of("biggan_32_cifar10", "smoke")
    with pytest.raises(FileNotFoundError, match="a generator is kept at the end of training"):
        generator.restored(config, str(tmp_path))
    with pytest.raises(ValueError, match=r"one network judges\. Received classifier='a' and inception='b'"):
        generator.scores(config, classifier="a", inception="b")
    with pytest.raises(ValueError, match=r"config\.scores holds arguments of scores.*limits"):
        session.build(generator.scores, "scores", {"limits": 3}, config=config)
    with pytest.raises(ValueError, match="Received 'tiny'"):
        config_of("biggan_deep_128_imagenet", "tiny")


@pytest.mark.slow
def test_a_run_is_judged_and_served(tmp_path):
    judge = config_of("evonorm_r20_cifar10", "smoke", program="classify")
    judge.norm_act.name = "bn_relu"
    classify.main(session.start_session(judge, str(tmp_path / "judge"), "train"))
    config = config_of("biggan_32_cifar10", "smoke")
    config.scores.update(classifier=str(tmp_path / "judge"), name="r8", splits=2, batch=4)
    workdir = tmp_path / "run"
    trained, results = synthesize.main(session.start_session(config, str(workdir)))
    assert {"frechet_distance_r8", "inception_score_r8", "best_frechet_distance_r8"} <= set(results)
    assert "fid" not in results and results["frechet_distance_r8"] > 0
    assert 1 <= results["inception_score_r8"] <= 8
    assert {path.name for path in (workdir / "pictures").glob("*.png")} == {"samples-4.png", "interpolation-4.png"}
    kept, names = generator.restored(config, str(workdir))
    z, label = tf.random.stateless_normal([2, 8], [1, 1]), tf.constant([0, 1])
    np.testing.assert_allclose(kept([z, label]), trained.average([z, label]), atol=1e-6)
    line = export(str(tmp_path / "served"), workdir=str(workdir))
    assert f"{len(names)} classes, 32 pixels" in line
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    images = served(latent=z, label=tf.cast(label, tf.int64))["images"]
    np.testing.assert_allclose(np.asarray(images, "float32"), (trained.average([z, label]) + 1) * 127.5, atol=0.51)
