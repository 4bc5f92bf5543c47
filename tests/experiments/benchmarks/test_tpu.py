"""Dumped steps: JAX on the CPU gives TensorFlow's numbers, the TPU's compiler takes them, the report reads its text."""

import importlib.util
import sys

import numpy as np
import pytest
import tensorflow as tf

import tf_evonorm
from experiments.benchmarks import hlo, tpu

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra `tpu` (JAX)")
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra `tpu` (libtpu)")

COMPILED = """HloModule m
%fused (p: f32[8]) -> f32[8] {
  %inner = f32[8] add(%p, %p), backend_config={"estimated_cycles":"7"}
}
ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %convolution_add_fusion.3 = f32[8]{0} fusion(%a), metadata={op_name="net/conv"}, config={"estimated_cycles":"100"}
  ROOT %copy.1 = f32[8]{0} copy(%convolution_add_fusion.3), backend_config={"estimated_cycles":"20"}
}
"""


def test_operations_of_the_entry_alone_are_counted():
    operations = hlo.entry_operations(COMPILED)
    assert [(one["kind"], one["source"], one["cycles"]) for one in operations] == [
        ("convolution fusion", "net/conv", 100),
        ("copy", "", 20),
    ]


def test_a_row_is_arithmetic_on_the_chip():
    report = {"module": "m", "topology": "v5e:1x1", "estimated_cycles": 940_000, "bytes": 8.19e8, "flops": 1.97e11}
    report.update(temporary_bytes=int(10e9), argument_bytes=int(7e9))
    row = tpu.row(report, images=100)
    assert row["ms"] == pytest.approx(1) and row["images_per_second"] == pytest.approx(1e5)
    assert row["bytes_ms"] == pytest.approx(1) and row["peak_share"] == pytest.approx(1)
    assert row["held_gb"] == pytest.approx(17) and not row["fits"]


def gradients(layer):
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 3)
        return [loss, *tape.gradient(loss, [x, *layer.trainable_variables])]

    return step


@needs_jax
@pytest.mark.parametrize("kind", ["EvoNormB0", "EvoNormS0", "BatchNormAct", "GroupNormAct"])
def test_jax_gives_tensorflows_numbers(kind, tmp_path):
    options = {"groups": 4} if kind in ("EvoNormS0", "GroupNormAct") else {}
    layer = getattr(tf_evonorm, kind)(**options)
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 8)).astype("float32")
    layer.build(x.shape)
    random = np.random.default_rng(1)
    for variable in layer.trainable_variables:
        variable.assign(random.uniform(0.5, 1.5, variable.shape))
    step = tf.function(gradients(layer), autograph=False)
    traced = step.get_concrete_function(tf.TensorSpec(x.shape))
    variables = {id(variable.handle): variable for variable in traced.variables}
    values = [variables[id(captured)].numpy() for captured in traced.captured_inputs]  # the order of HLO's parameters
    path = tmp_path / "step.hlo"
    path.write_bytes(tpu.dump(gradients(layer), tf.constant(x)))
    expected = [value.numpy() for value in step(tf.constant(x))]
    outputs, _ = hlo.run(hlo.read(path), [x, *values])
    for output, value in zip(outputs, expected):
        np.testing.assert_allclose(output, value, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(value).max()))


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("layer", ["bn_relu", "evonorm_b0", "evonorm_s0"])
def test_a_small_network_compiles_for_a_tpu(layer):
    module = tpu.network_step(layer, batch=2, size=64)
    (report,) = tpu.compile_all({layer: module}, "v5e:1x1", sys.executable)
    row = tpu.row(report, 2)
    assert row["cycles"] > 0 and row["fits"] and report["operations"][0]["source"]


def test_a_record_is_not_compiled_again(tmp_path, capsys, monkeypatch):
    report = {"module": "module", "topology": "v5e:1x1", "estimated_cycles": 940_000, "bytes": 1e9, "flops": 1e12}
    report.update(temporary_bytes=1, argument_bytes=1, collectives={}, operations=[])
    compiled = []
    monkeypatch.setattr(tpu, "step", lambda config, *_: (b"", 8))
    monkeypatch.setattr(tpu, "compile_all", lambda modules, *_: compiled.append(modules) or [report])
    command = ["step", "--config=pixpro_r50_imagenet", "--batch=8", f"--record={tmp_path}/record.json"]
    rows = tpu.main(command)
    assert rows == tpu.main(command) and len(compiled) == 1
    assert rows[0]["module"] == "pixpro_r50_imagenet, batch 8, v5e:1x1"
    assert rows[0]["images_per_second"] == pytest.approx(8000)
    assert "estimate for v5e:1x1, not a run" in capsys.readouterr().out


def test_a_module_that_takes_too_long_is_named(capsys, monkeypatch):
    monkeypatch.setattr(tpu, "step", lambda config, *_: (b"", 8))
    monkeypatch.setattr(tpu, "compile_all", lambda *_: [])
    assert tpu.main(["step", "--batch=8", "--limit=5"]) == []
    assert "pixpro_r50_imagenet, batch 8, v5e:1x1: not compiled within 5 s" in capsys.readouterr().out


def test_a_topology_has_chips():
    assert [tpu.chips(topology) for topology in ("v5e:1x1", "v5e:2x2", "v4:2x2x1")] == [1, 4, 4]
