"""The task in Model Garden's loop: what a run leaves, resume, replicas, XLA, precision, the stop at a non-finite
loss."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm import BatchNormAct
from tf_evonorm.mistakes import Mistake
from tf_pixpro import LARS, PixelPropagation, PixPro, ProjectionHead, WarmupCosine, data
from tf_pixpro.train.loop import experiment_config, latest_step
from tf_pixpro.train.pretext_task import PixProTask, Probe, pretrain

BATCH, STEPS = 8, 6


def encoder():
    images = tf.keras.Input((None, None, 3))
    x = tf.keras.layers.Conv2D(8, 8, strides=8, use_bias=False)(images)
    x = BatchNormAct(synchronized=True)(x)
    return tf.keras.Model(images, {"5": tf.keras.layers.Conv2D(8, 1)(x)})


def model(steps=STEPS):
    tf.keras.utils.set_random_seed(1)
    return PixPro(encoder(), ProjectionHead(8, 8), PixelPropagation(), steps=steps)


def optimizer():
    return LARS(WarmupCosine(1.0, STEPS, 2), weight_decay=1e-5)


def views(context=None, start_step=0, bad_step=None):
    """Random images, each a function of its number alone."""

    def image(number):
        seed = tf.stack([number, 0])
        images = tf.random.stateless_normal([2, 32, 32, 3], seed)
        if bad_step is not None:
            images += tf.where(number // BATCH == bad_step, np.nan, 0.0)
        corner = tf.random.stateless_uniform([2, 2], seed, maxval=0.4)
        boxes = tf.concat([corner, corner + 0.6], -1)
        return {"view1": images[0], "view2": images[1], "box1": boxes[0], "box2": boxes[1]}

    size = context.get_per_replica_batch_size(BATCH) if context else BATCH
    batches = tf.data.Dataset.range(start_step * BATCH, 10**6).map(image).batch(size, drop_remainder=True)
    return batches.shard(context.num_input_pipelines, context.input_pipeline_id) if context else batches


def labelled(count, seed):
    def dataset(context):
        random = np.random.default_rng(seed)
        labels = random.integers(0, 2, count)
        colours = np.array([[1, 0, -1], [-1, 0, 1]], np.float32)
        images = random.normal(size=(count, 32, 32, 3)).astype("f") + 3 * colours[labels][:, None, None]
        data = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})
        if context:
            data = data.shard(context.num_input_pipelines, context.input_pipeline_id)
        return data.batch(context.get_per_replica_batch_size(BATCH) if context else BATCH)

    return dataset


PROBE = Probe(labelled(37, 0), labelled(21, 1))


def run(
    folder, mode="train", strategy=None, images=views, evaluation=PROBE, steps=STEPS, jit=False, runtime=None, **trainer
):
    task = PixProTask(model, optimizer, images, evaluation, jit_compile=jit, logging_dir=str(folder))
    trainer = {"steps_per_loop": 1, "checkpoint_interval": 2, "validation_interval": 3, **trainer}
    config = experiment_config(steps, BATCH, trainer, runtime)
    strategy = strategy or tf.distribute.OneDeviceStrategy("CPU:0")
    pictures = tf.nest.map_structure(lambda t: t[:1], next(iter(views()))) if mode == "train_and_eval" else None
    return pretrain(task, config, strategy, str(folder), mode, pictures, progress=False)


def tags(folder):
    """Summary tag -> list of (step, value or picture bytes)."""
    found = {}
    for file in folder.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, tf.make_ndarray(value.tensor)))
    return found


def same(first, second):
    for a, b in zip(first.weights, second.weights):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.name)


def test_what_a_run_leaves(tmp_path):
    trained, results = run(tmp_path, "train_and_eval")
    assert latest_step(str(tmp_path)) == STEPS == trained.momentum_step.numpy()
    assert results["knn_accuracy"] > 0.9  # the colours tell the classes apart
    summaries = tags(tmp_path / "train")
    expected = (
        "training_loss",
        "learning_rate",
        "momentum",
        "gradient_norm",
        "positives",
        "without_positives",
        "projection_std",
    )
    for tag in expected:
        assert [step for step, _ in summaries[tag]] == [1, 2, 3, 4, 5, 6], tag
    assert len(summaries["images_per_second"]) == 5  # the first loop compiles
    assert "nonfinite_steps" not in summaries
    assert [step for step, _ in tags(tmp_path / "validation")["knn_accuracy"]] == [0, 3, 6]
    pictures = tags(tmp_path / "pictures")
    assert set(pictures) == {"similarity/0", "correspondence/0"}
    assert tf.io.decode_image(pictures["similarity/0"][0][1][2]).shape == (320, 900, 3)
    assert json.loads((tmp_path / "best" / "info.json").read_text())["knn_accuracy"] > 0.9
    fresh = encoder()
    tf.train.Checkpoint(backbone=fresh).read(str(tmp_path / "backbone")).assert_consumed()
    same(fresh, trained.encoder)
    assert (tmp_path / "best" / "backbone.index").exists()
    _, again = run(tmp_path, "eval")
    assert again["knn_accuracy"] == results["knn_accuracy"]


def test_started_again_it_ends_where_it_would_have_ended(tmp_path):
    whole, _ = run(tmp_path / "whole")
    run(tmp_path / "parts", steps=3)
    assert latest_step(str(tmp_path / "parts")) == 3
    parts, _ = run(tmp_path / "parts")
    same(parts, whole)
    summaries = tags(tmp_path / "parts" / "train")["momentum"]
    expected = [1 - 0.01 * (np.cos(np.pi * k / STEPS) + 1) / 2 for k in range(STEPS)]
    np.testing.assert_allclose([v for _, v in sorted(summaries, key=lambda s: s[0])], expected, atol=1e-6)


def test_remote_records_and_working_folders_resume(request):
    root = f"ram://{request.node.name}"
    tf.io.gfile.makedirs(root)
    for file in range(3):
        with tf.io.TFRecordWriter(f"{root}/{file}.tfrecord") as writer:
            for number in range(9):  # 27 images in all: three steps of 8, and three images
                pixels = tf.random.stateless_uniform([40, 40, 3], [file, number], 0, 256, tf.int32)
                image = tf.io.encode_png(tf.cast(pixels, tf.uint8)).numpy()
                feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
                features = tf.train.Features(feature={"image/encoded": feature})
                writer.write(tf.train.Example(features=features).SerializeToString())

    def images(context=None, start_step=0):
        source = data.source(f"{root}/*.tfrecord")
        return data.pretrain_dataset(source, (32, 32), BATCH, 3, input_context=context, start_step=start_step)

    whole, _ = run(f"{root}/whole", images=images)
    run(f"{root}/parts", images=images, steps=5)  # ends within the second epoch
    for file in tf.io.gfile.glob(f"{root}/parts/backbone*"):  # a killed run has none, and ram:// takes it for a folder
        tf.io.gfile.remove(file)
    parts, _ = run(f"{root}/parts", images=images)
    same(parts, whole)


def test_without_labels_the_pretext_loss_ranks_checkpoints(tmp_path):
    _, results = run(tmp_path, "train_and_eval", evaluation=lambda context: views(context).take(2), steps=2)
    assert -4 <= results["validation_loss"] <= 4
    assert {"projection_std", "without_positives", "best_validation_loss"} <= set(results)


def test_two_replicas_train_as_one(tmp_path, two_replicas):
    one, first = run(tmp_path / "one", "train_and_eval", steps=3)
    two, second = run(tmp_path / "two", "train_and_eval", steps=3, strategy=two_replicas)
    for a, b in zip(one.weights, two.weights):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=a.name)
    assert first["knn_accuracy"] == second["knn_accuracy"]


@pytest.mark.slow
def test_a_run_resumes_on_another_number_of_replicas(tmp_path, two_replicas):
    """The same global batches, taken by one device or shared by two."""
    whole, _ = run(tmp_path / "whole", steps=3)
    for steps, strategy in ((1, None), (2, two_replicas), (3, None)):
        parts, _ = run(tmp_path / "parts", steps=steps, strategy=strategy)
        assert latest_step(str(tmp_path / "parts")) == steps == parts.momentum_step.numpy()
    for a, b in zip(whole.weights, parts.weights):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=a.name)


def test_xla_compiles_the_whole_step(tmp_path):
    plain, _ = run(tmp_path / "plain", steps=3)
    compiled, _ = run(tmp_path / "compiled", steps=3, jit=True)
    losses = [[v for _, v in tags(tmp_path / name / "train")["training_loss"]] for name in ("plain", "compiled")]
    np.testing.assert_allclose(*losses, atol=1e-5)
    for a, b in zip(plain.weights, compiled.weights):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=a.name)


def test_xla_and_several_replicas_do_not_go_together(tmp_path, two_replicas):
    with pytest.raises(ValueError, match=r"Received jit_compile=True on 2 replicas"):
        run(tmp_path, steps=1, jit=True, strategy=two_replicas)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision(tmp_path, dtype):
    tf.keras.mixed_precision.set_global_policy(f"mixed_{dtype}")
    try:
        trained, _ = run(tmp_path, runtime={"mixed_precision_dtype": dtype}, steps=3)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    losses = [value for _, value in tags(tmp_path / "train")["training_loss"]]
    assert len(losses) == 3 and np.isfinite(losses).all()
    assert all(w.dtype == tf.float32 for w in trained.trainable_weights)


@pytest.mark.parametrize("per_loop", [1, 4])
def test_a_non_finite_loss_stops_the_run_and_names_the_step(tmp_path, per_loop):
    def bad(context, start_step):
        return views(context, start_step, bad_step=4)

    with pytest.raises(FloatingPointError, match=r"They did not at step 5\."):
        run(tmp_path, images=bad, steps_per_loop=per_loop, checkpoint_interval=1, steps=8)
    assert latest_step(str(tmp_path)) == 4
    reader = tf.train.load_checkpoint(str(tmp_path))
    weights = [reader.get_tensor(key) for key in reader.get_variable_to_shape_map() if key.startswith("model/")]
    assert all(np.isfinite(w).all() for w in weights if w.dtype.kind == "f")


@pytest.mark.parametrize("per_loop", [1, 8])
def test_where_the_input_fails_what_was_learned_is_kept(tmp_path, per_loop):
    """Too many bad images, a file that is gone: the finished steps are saved, and the resumed run ends as ever."""

    def failing(context, start_step):
        def check(batch, number):
            with tf.control_dependencies([tf.debugging.assert_less(number + start_step, tf.constant(4, tf.int64))]):
                return tf.nest.map_structure(tf.identity, batch)

        return tf.data.Dataset.zip((views(context, start_step), tf.data.Dataset.range(10**6))).map(check)

    with pytest.raises(tf.errors.InvalidArgumentError):
        run(tmp_path / "failed", images=failing, steps_per_loop=per_loop, checkpoint_interval=8)
    assert latest_step(str(tmp_path / "failed")) == 4
    resumed, _ = run(tmp_path / "failed", steps_per_loop=per_loop, checkpoint_interval=8)
    whole, _ = run(tmp_path / "whole", steps_per_loop=per_loop, checkpoint_interval=8)
    same(resumed, whole)


@pytest.mark.slow
def test_two_workers_train_as_one_replica_and_resume(tmp_path):
    one, results = run(tmp_path / "one", "train_and_eval")
    for steps in (3, STEPS):  # the second start finds the checkpoint of the first
        answers = _workers(2, tmp_path / "two", steps)
    for answer in answers:
        with np.load(answer) as weights:
            for number, weight in enumerate(one.weights):
                np.testing.assert_allclose(weights[f"w{number}"], weight.numpy(), atol=1e-5, err_msg=weight.name)
            assert weights["accuracy"] == results["knn_accuracy"]
    assert len(list((tmp_path / "two" / "train").glob("events.*"))) == 2  # the chief's, once for each start


def _workers(count, folder, steps):
    """Runs this file as `count` processes of one cluster and returns what each wrote."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    addresses = [f"localhost:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    root, answers, processes = pathlib.Path(__file__).resolve().parents[3], [], []
    for index in range(count):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        answers.append(folder.parent / f"worker{index}.npz")
        command = [sys.executable, __file__, str(folder), str(steps), str(answers[-1])]
        environment = {**os.environ, "TF_CONFIG": json.dumps(cluster), "PYTHONPATH": str(root)}
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        for process in processes:
            assert process.wait(timeout=600) == 0, process.stderr.read()[-3000:]
    finally:
        for process in processes:
            process.kill()
    return answers


def test_mistakes(tmp_path):
    with pytest.raises(Mistake, match="Received mode='both'"):
        run(tmp_path, "both")
    with pytest.raises(Mistake, match="Train first"):
        run(tmp_path, "eval")
    with pytest.raises(ValueError, match="Received evaluation=None"):
        run(tmp_path, "train_and_eval", evaluation=None)
    with pytest.raises(TypeError, match="step_per_loop"):
        run(tmp_path, step_per_loop=3)


if __name__ == "__main__":  # one worker of the test above
    workers = tf.distribute.MultiWorkerMirroredStrategy()
    trained, numbers = run(pathlib.Path(sys.argv[1]), "train_and_eval", workers, steps=int(sys.argv[2]))
    arrays = {f"w{number}": weight.numpy() for number, weight in enumerate(trained.weights)}
    np.savez(sys.argv[3], accuracy=numbers["knn_accuracy"], **arrays)
