"""Modules run by JAX: times and bytes, agreement with the CPU, and a table of ratios."""

import importlib.util

import pytest
import tensorflow as tf

from experiments.benchmarks import hlo, replicas, tpu

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


def test_what_crosses_between_chips_is_counted():
    text = """
  %all-reduce.1 = f32[17]{0:T(128)} all-reduce(%a), replica_groups={{0,1,2,3}}, to_apply=%add
  %all-reduce-start = (f32[16]{0}, bf16[2,8]{1,0}) all-reduce-start(%b, %c), replica_groups={{0,1,2,3}}
  %all-reduce-done = (f32[16]{0}, bf16[2,8]{1,0}) all-reduce-done(%all-reduce-start)
  %all-gather.2 = s32[] all-gather(%d), dimensions={0}
"""
    assert hlo.collectives(text) == {
        "all-reduce": {"number": 2, "bytes": 17 * 4 + 16 * 4 + 16 * 2},
        "all-gather": {"number": 1, "bytes": 4},
    }


@needs_jax
def test_sums_over_replicas_are_found_in_a_dump(tmp_path):
    strategy = replicas.one_of(4)

    def summed(x):
        context = tf.distribute.get_replica_context()
        assert context.num_replicas_in_sync == 4
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(context.all_reduce(tf.distribute.ReduceOp.MEAN, x) ** 2)
        return y, tape.gradient(y, x)

    path = tmp_path / "sum.hlo"
    path.write_bytes(tpu.dump(lambda x: strategy.run(summed, (x,)), tf.zeros([3, 4])))
    assert hlo.requested(hlo.read(str(path))) == {"number": 2, "bytes": 2 * 12 * 4}
