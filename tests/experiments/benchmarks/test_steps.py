"""Whole training steps of configs: traced, compiled for a TPU, run by JAX with TensorFlow's numbers."""

import importlib.util
import sys

import numpy as np
import pytest
import tensorflow as tf

from experiments.benchmarks import hlo, steps, tpu
from experiments.builders import pretext
from experiments.launch.sections import SectionMistake

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra `tpu` (JAX)")
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra `tpu` (libtpu)")


def test_an_unknown_config_is_named():
    with pytest.raises(SectionMistake, match="Received 'pixpro_r51'"):
        steps.config_of("pixpro_r51")


def test_a_config_is_changed_as_programs_change_it():
    changes = ["backbone.depth=18", "norm_act.name=evonorm_s0", "norm_act.synchronized=False", "views.size=(64, 64)"]
    kind, config = steps.config_of("pixpro_r50_imagenet:400", changes)
    assert kind == "pretrain" and config.schedule.epochs == 400
    assert config.backbone.depth == 18 and config.norm_act.to_dict() == {"name": "evonorm_s0", "synchronized": False}
    assert config.views.size == (64, 64)


FEW = ["schedule.warmup_epochs=0.0"]  # a step at rate 0 would change no weight


def traced(function, inputs):
    """(serialized HLO, concrete function, values of its variables in the order of HLO's parameters)."""
    concrete = tf.function(function, autograph=False).get_concrete_function(*inputs)
    variables = {id(variable.handle): variable for variable in concrete.variables}
    variables = [variables[id(captured)] for captured in concrete.captured_inputs]
    return tpu.dump(function, *inputs), concrete, variables


def drawn(spec, random):
    return tf.cast(random.uniform(0.1, 0.9, spec.shape), spec.dtype)


@pytest.mark.slow
@needs_jax
def test_jax_gives_tensorflows_loss_of_a_whole_step(tmp_path):
    step = steps.step_of("pixpro_r50_imagenet:smoke", 4, FEW)
    random = np.random.default_rng(0)
    inputs = tf.nest.map_structure(lambda spec: drawn(spec, random), step.inputs)
    module, concrete, variables = traced(step.function, step.inputs)
    before = [variable.numpy() for variable in variables]
    path = tmp_path / "step.hlo"
    path.write_bytes(module)
    parameters = [array.numpy() for array in tf.nest.flatten(inputs)]
    (loss, *_), _ = hlo.run(hlo.read(str(path)), [*parameters, *before])
    expected = tf.nest.flatten(concrete(*inputs))[0].numpy()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.slow
@needs_jax
def test_jax_gives_tensorflows_loss_and_gradients(tmp_path):
    _, config = steps.config_of("pixpro_r50_imagenet:smoke")
    model = pretext.pretext_model(config, 10)
    weights = model.trainable_weights

    def gradients(batch):
        with tf.GradientTape() as tape:
            loss = model.pretext_loss(batch, training=True)["loss"]
        return [loss, *tape.gradient(loss, weights)]

    random = np.random.default_rng(0)
    spec = steps.step_of("pixpro_r50_imagenet:smoke", 4).inputs
    inputs = tf.nest.map_structure(lambda one: drawn(one, random), spec)
    module, concrete, variables = traced(gradients, spec)
    before = [variable.numpy() for variable in variables]
    path = tmp_path / "gradients.hlo"
    path.write_bytes(module)
    outputs, _ = hlo.run(hlo.read(str(path)), [*(array.numpy() for array in tf.nest.flatten(inputs)), *before])
    expected = [value.numpy() for value in concrete(*inputs)]
    largest = max(np.abs(value).max() for value in expected[1:])
    for output, value in zip(outputs, expected):
        np.testing.assert_allclose(output, value, rtol=1e-5, atol=1e-5 * largest)


def losses(config, dtype):
    """Losses of three steps in a dtype, whose variables are all float32, finite and changed."""
    tf.keras.utils.set_random_seed(0)
    step = steps.step_of(config, 4, [f"runtime.mixed_precision_dtype={dtype}", *FEW], half=dtype)
    random = np.random.default_rng(0)
    inputs = tf.nest.map_structure(lambda spec: drawn(spec, random), step.inputs)
    before = [weight.numpy() for weight in step.weights]
    train = tf.function(step.function, autograph=False)
    values = [float(tf.nest.flatten(train(*inputs))[0]) for _ in range(3)]
    assert all(weight.dtype == tf.float32 and np.isfinite(weight.numpy()).all() for weight in step.weights)
    assert any(np.any(weight.numpy() != old) for weight, old in zip(step.weights, before))
    return values


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    ["pixpro_r50_imagenet:smoke", "evonorm_r50_imagenet:smoke"],  # the first is in float16, as its authors ran it
)
def test_steps_in_half_precision_follow_float32(config):
    wanted = losses(config, "float32")
    for half in ("float16", "bfloat16"):
        np.testing.assert_allclose(losses(config, half), wanted, rtol=0.05, atol=0.02)


COMPILED = [
    "pixpro_r50_imagenet:smoke",
    "pixcontrast_r50_imagenet:smoke",
    "pixpro_fpn_r50_imagenet:smoke",
    "evonorm_mobilenetv2_imagenet:smoke",
    "coco_retinanet_r50_fpn_1x:smoke",
    "coco_mask_rcnn_r50_fpn_1x:smoke",
    "cityscapes_fcn_r50:smoke",
    "biggan_32_cifar10:smoke",
]
MORE = [
    "byol_r50_imagenet:smoke",
    "simclr_r50_imagenet:smoke",
    "evonorm_r50_imagenet:smoke",
    "evonorm_efficientnet_b0_imagenet:smoke",
]


@needs_libtpu
@pytest.mark.parametrize(
    "config",
    [
        *(pytest.param(config, marks=pytest.mark.slow) for config in COMPILED),
        *(pytest.param(config, marks=pytest.mark.thorough) for config in MORE),
    ],
)
def test_a_small_step_compiles_for_a_tpu(config):
    module, images = tpu.step(config, batch=2)
    (report,) = tpu.compile_all({"step": module}, "v5e:1x1", sys.executable, quick=True)
    assert images == 2 and tpu.row(report, images)["fits"] and report["operations"][0]["source"]


@pytest.mark.slow
@needs_libtpu
def test_replicas_exchange_statistics_where_they_are_synchronized():
    exchanged = []
    for synchronized in (True, False):
        changes = [f"norm_act.synchronized={synchronized}", "runtime.mixed_precision_dtype=bfloat16"]
        module, _ = tpu.step("pixpro_r50_imagenet:smoke", 2, changes, replicas=4)
        (report,) = tpu.compile_all({"step": module}, "v5e:2x2", sys.executable, quick=True)
        exchanged.append(report["collectives"]["all-reduce"])
    assert exchanged[0]["number"] > exchanged[1]["number"] > 0
    assert exchanged[0]["bytes"] > exchanged[1]["bytes"] > 0
