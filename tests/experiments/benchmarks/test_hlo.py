"""Modules run by JAX: times and bytes, agreement with the CPU, and a table of ratios."""

import importlib.util

import pytest
import tensorflow as tf

from experiments.benchmarks import hlo, tpu

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra `tpu` (JAX)")


@needs_jax
def test_a_module_runs_on_random_inputs(tmp_path):
    path = tmp_path / "norm.hlo"
    path.write_bytes(tpu.dump(lambda x: tf.reduce_sum(x * x, -1), tf.zeros([3, 4])))
    timing = hlo.timing(str(path), "cpu", repeats=3, bandwidth=1e9)
    assert timing["ms"] > 0 and timing["largest_difference"] == 0 and timing["agrees"]
    assert timing["bytes"] == (12 + 3) * 4  # the input and the result
    assert timing["copy_ratio"] == pytest.approx(timing["ms"] / 1e3 * 1e9 / 60)


@needs_jax
def test_a_copy_has_a_bandwidth():
    assert hlo.copy_bandwidth("cpu", size=2**16, repeats=2) > 0


def test_ratios_are_to_the_baseline_of_the_same_shape():
    row = {"copy_ratio": 1.5, "largest_difference": 1e-6, "agrees": True}
    table = hlo.times_table(
        [
            {**row, "module": "bn_relu.8x8.forward", "ms": 2.0},
            {**row, "module": "evonorm_s0.8x8.forward", "ms": 3.0},
            {**row, "module": "evonorm_s0.8x8.both", "ms": 3.0, "agrees": False},
        ]
    )
    lines = table.splitlines()
    assert lines[3] == "| evonorm_s0.8x8.forward | 3.000 | 1.50 | 1.50 | 1.0e-06 | yes |"
    assert lines[4] == "| evonorm_s0.8x8.both | 3.000 |  | 1.50 | 1.0e-06 | NO |"
