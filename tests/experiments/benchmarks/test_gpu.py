"""Layers that TensorFlow dumps and JAX times, on JAX's CPU."""

import importlib.util

import pytest

from experiments.benchmarks import gpu
from tf_evonorm.mistakes import Mistake

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra `tpu` (JAX)")
SMALL = ["--layers", "evonorm_s0", "--shapes", "2x4x4x32"]


def test_modules_are_written_for_a_machine_without_tensorflow(tmp_path):
    assert gpu.main([f"--folder={tmp_path}", *SMALL, "--dump-only"]) is None
    names = {
        f"{layer}.2x4x4x32.float32.{part}.hlo" for layer in ("bn_relu", "evonorm_s0") for part in ("forward", "both")
    }
    assert {path.name for path in tmp_path.iterdir()} == names


@needs_jax
def test_layers_are_timed_and_agree(tmp_path):
    printed = gpu.main([f"--folder={tmp_path}", *SMALL, "--platform=cpu", "--dtypes", "float32", "bfloat16"])
    rows = [line for line in printed.splitlines() if line.startswith(("| bn_relu", "| evonorm_s0"))]
    assert len(rows) == 8 and all(row.endswith("| yes |") for row in rows)


def test_a_python_without_the_platform_is_a_mistake(tmp_path):
    with pytest.raises(Mistake, match="JAX must run on nowhere"):
        gpu.main([f"--folder={tmp_path}", *SMALL, "--platform=nowhere"])
