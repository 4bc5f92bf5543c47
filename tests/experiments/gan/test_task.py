"""Adversarial training on networks of a few layers: averages, replicas, resuming after kill -9, both stops."""

import functools
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from experiments.gan.task import AdversarialTask, Adversaries, StopAtCollapse
from tf_evonorm import BatchNormAct, EvoNormB0, biggan
from tf_evonorm.layers.conditional import spectral
from tf_pixpro.train import loop

STEPS, BATCH, PARTS = 4, 8, 2
ROOT = pathlib.Path(__file__).resolve().parents[3]


def generator():
    z, label = tf.keras.Input([5], name="latent"), tf.keras.Input([], dtype="int64", name="label")
    x = tf.keras.layers.Concatenate()([z, tf.keras.layers.Embedding(3, 4)(label)])
    x = tf.keras.layers.Reshape([4, 4, 4])(spectral(tf.keras.layers.Dense(64, name="seed"))(x))
    x = BatchNormAct(synchronized=True)(x)
    return tf.keras.Model([z, label], tf.keras.layers.Conv2D(3, 3, padding="same", activation="tanh")(x))


def discriminator():
    image, label = tf.keras.Input([4, 4, 3]), tf.keras.Input([], dtype="int64")
    x = spectral(tf.keras.layers.Conv2D(8, 3, activation="relu", name="stem"))(image)
    x = tf.keras.layers.Concatenate()([tf.keras.layers.Flatten()(x), tf.keras.layers.Embedding(3, 4)(label)])
    return tf.keras.Model([image, label], tf.keras.layers.Reshape([])(tf.keras.layers.Dense(1)(x)))


def biggan_networks():
    """The smallest BigGAN-deep, with a layer that takes its moments over all replicas."""
    tf.keras.utils.set_random_seed(1)
    norm_act = functools.partial(EvoNormB0, synchronized=True)
    options = {"width": 1 / 32, "num_classes": 3, "attention": 16}
    return Adversaries(
        functools.partial(biggan.generator, 32, latent=5, embedding=4, norm_act=norm_act, **options),
        functools.partial(biggan.discriminator, 32, **options),
    )


def networks():
    tf.keras.utils.set_random_seed(1)
    return Adversaries(generator, discriminator)


def optimizers():
    return [tf.keras.optimizers.Adam(rate, beta_1=0.0, epsilon=1e-2) for rate in (0.01, 0.02)]


def batches(context=None, start_step=0, bad_step=None, side=4):
    """Rows that are each a function of their number alone."""

    def row(number):
        seed = tf.stack([number, 0])
        image = tf.random.stateless_uniform([side, side, 3], seed, -1, 1)
        if bad_step is not None:
            image += tf.where(number // (BATCH * PARTS) == bad_step, np.nan, 0.0)
        label = tf.random.stateless_uniform([3], seed, 0, 3, tf.int64)
        return {
            "image": image,
            "label": label[0],
            "latent": tf.random.stateless_normal([2, 5], seed),
            "other_label": label[1:],
        }

    size = context.get_per_replica_batch_size(BATCH * PARTS) if context else BATCH * PARTS
    rows = tf.data.Dataset.range(start_step * BATCH * PARTS, 10**6).map(row)
    return rows.batch(size, drop_remainder=True)


def run(folder, steps=STEPS, strategy=None, images=batches, collapse=None, networks=networks, **options):
    options = {"discriminator_steps": PARTS, "average_decay": 0.5, "average_start": 2, **options}
    task = AdversarialTask(networks, optimizers, images, logging_dir=str(folder), **options)
    config = loop.experiment_config(steps, BATCH, {"steps_per_loop": 1, "checkpoint_interval": 1, "max_to_keep": 9})

    def actions(trainer):
        return [StopAtCollapse(trainer.model, collapse, trainer.global_step, str(folder))] if collapse else []

    strategy = strategy or tf.distribute.OneDeviceStrategy("CPU:0")
    trained, _ = loop.run(task, config, strategy, str(folder), "train", train_actions=actions, progress=False)
    return trained


def same(first, second, tolerance=0.0):
    for name in ("generator", "average", "discriminator"):
        for a, b in zip(getattr(first, name).weights, getattr(second, name).weights):
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=tolerance, rtol=0, err_msg=f"{name} {a.name}")


def weights(folder, step, network):
    """Kernels and the like of one checkpoint, by their path."""
    reader = tf.train.load_checkpoint(f"{folder}/ckpt-{step}")
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith(f"model/{network}/")]
    return {
        name.split("/", 2)[2]: reader.get_tensor(name)
        for name in names
        if "OPTIMIZER" not in name and not name.startswith("model/pairs")
    }


def test_averages_follow_and_a_stopped_run_ends_where_it_would_have_ended(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", steps=2)
    same(run(tmp_path / "parts"), whole)
    generators = [weights(tmp_path / "whole", step, "generator") for step in range(1, STEPS + 1)]
    averages = [weights(tmp_path / "whole", step, "average") for step in range(1, STEPS + 1)]
    kernels = [name for name in generators[0] if "kernel" in name]
    assert kernels
    for name in kernels:
        assert np.abs(generators[3][name] - generators[0][name]).max() > 1e-4  # it learns
        expected = generators[1][name]  # up to step 2 the averages are the weights
        for step in (2, 3):
            expected = (expected + generators[step][name]) / 2
            np.testing.assert_allclose(averages[step][name], expected, atol=1e-6)


@pytest.mark.slow
def test_two_replicas_train_as_one(tmp_path, two_replicas):
    same(run(tmp_path / "two", 2, two_replicas), run(tmp_path / "one", 2), 1e-5)


@pytest.mark.slow
def test_two_replicas_train_biggan_as_one(tmp_path, two_replicas):
    options = {"images": functools.partial(batches, side=32), "networks": biggan_networks}
    same(run(tmp_path / "two", 1, two_replicas, **options), run(tmp_path / "one", 1, **options), 1e-5)


def test_a_step_descends_the_hinge_losses():
    """With gradient descent the change of each weight is the rate times the gradient of the paper's loss."""
    task = AdversarialTask(networks, lambda: [tf.keras.optimizers.SGD(0.1) for _ in range(2)], batches)
    model, reference = task.build_model(), networks()
    optimizer = task.create_optimizer()
    inputs = next(iter(batches()))
    rows = {name: value[:BATCH] for name, value in inputs.items()}
    task.train_step(rows, model, optimizer)
    fake = reference.generator([rows["latent"][:, 0], rows["other_label"][:, 0]], training=True)
    with tf.GradientTape() as tape:
        images = tf.concat([rows["image"], fake], 0)  # in one call: each moves the power iteration
        labels = tf.concat([rows["label"], rows["other_label"][:, 0]], 0)
        real_scores, fake_scores = tf.split(reference.discriminator([images, labels], training=True), 2)
        loss = tf.reduce_mean(tf.maximum(0.0, 1 - real_scores)) + tf.reduce_mean(tf.maximum(0.0, 1 + fake_scores))
    kernels = reference.discriminator.trainable_weights
    for kernel, slope in zip(kernels, tape.gradient(loss, kernels)):
        kernel.assign_sub(0.1 * tf.convert_to_tensor(slope))
    with tf.GradientTape() as tape:
        fake = reference.generator([rows["latent"][:, 1], rows["other_label"][:, 1]], training=True)
        loss = -tf.reduce_mean(reference.discriminator([fake, rows["other_label"][:, 1]], training=True))
    kernels = reference.generator.trainable_weights
    for kernel, slope in zip(kernels, tape.gradient(loss, kernels)):
        kernel.assign_sub(0.1 * tf.convert_to_tensor(slope))
    for name in ("generator", "discriminator"):
        mine, theirs = (getattr(owner, name).trainable_weights for owner in (model, reference))
        for a, b in zip(mine, theirs):
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6, err_msg=a.name)


def test_divergence_stops_the_run_and_says_so(tmp_path):
    with pytest.raises(FloatingPointError, match=r"They did not at step 2\."):
        run(tmp_path / "nan", images=lambda context, start: batches(context, start, bad_step=1))
    assert loop.latest_step(str(tmp_path / "nan")) == 1
    with pytest.raises(FloatingPointError, match=r"training has collapsed.* near 0 since step 1, for 3 steps"):
        run(tmp_path / "collapsed", collapse=3, collapse_loss=1e9)


@pytest.mark.parametrize("dtype", [pytest.param("float16", marks=pytest.mark.slow)])
def test_mixed_precision(tmp_path, dtype):
    tf.keras.mixed_precision.set_global_policy(f"mixed_{dtype}")
    try:
        trained = run(tmp_path, 2)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    for network in (trained.generator, trained.discriminator):
        assert all(w.dtype == tf.float32 and np.isfinite(w).all() for w in network.weights)


def test_mistakes():
    with pytest.raises(ValueError, match="Received discriminator_steps=0"):
        AdversarialTask(networks, optimizers, batches, discriminator_steps=0)


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been_killed(tmp_path):
    def start(folder):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, __file__, str(folder)], env=environment, stderr=subprocess.PIPE, text=True
        )

    whole = start(tmp_path / "whole")
    killed = start(tmp_path / "parts")
    limit = time.monotonic() + 300
    while not (tmp_path / "parts" / "ckpt-5.index").exists() and killed.poll() is None and time.monotonic() < limit:
        time.sleep(0.001)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    again = start(tmp_path / "parts")
    for process in (whole, again):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
    first, second = (tf.train.load_checkpoint(str(tmp_path / name)) for name in ("whole", "parts"))
    names = [name for name in first.get_variable_to_shape_map() if "GRAPH" not in name and "save_counter" not in name]
    assert any("discriminator_optimizer" in name for name in names)
    for name in names:
        np.testing.assert_array_equal(first.get_tensor(name), second.get_tensor(name), err_msg=name)


if __name__ == "__main__":  # a run of the test above
    tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(0)
    run(pathlib.Path(sys.argv[1]), steps=60)
