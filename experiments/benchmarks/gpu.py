"""Times of the layers on a GPU that JAX has, from HLO that TensorFlow has dumped.

    python -m experiments.benchmark gpu --folder=/tmp/modules --layers bn_relu evonorm_b0 evonorm_s0
    python -m experiments.benchmark gpu --folder=/tmp/modules --dump-only    # then, on a machine with JAX alone:
    python hlo.py time gpu /tmp/modules/*.hlo

Each layer is dumped forward and with gradients and run on random inputs; results are checked against JAX's CPU, and
times are compared with BatchNorm and ReLU of the same framework and with a copy of the inputs and outputs.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from experiments.benchmarks import hlo, tpu
from tf_evonorm.layers import named
from tf_evonorm.mistakes import Mistake


def layer_modules(layer: str, shape: Sequence[int], dtype: str = "float32") -> dict[str, bytes]:
    """HLO of one layer in training mode, {'LAYER.SHAPE.DTYPE.forward': bytes, 'LAYER.SHAPE.DTYPE.both': bytes}.

    Args:
      layer: a name of `tf_evonorm.layers.named`.
      shape: [B, H, W, C] of the input.
      dtype: of input and result; variables are float32.
    """
    make: Any = named.norm_act(layer)
    built = make(dtype=dtype if dtype == "float32" else f"mixed_{dtype}")
    built.build(tuple(shape))

    def forward(x):
        return built(x, training=True)

    def both(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = forward(x)
        return y, tape.gradient(y, [x, *built.trainable_weights], dy)

    x = tf.zeros(shape, dtype)
    name = f"{layer}.{'x'.join(map(str, shape))}.{dtype}"
    return {f"{name}.forward": tpu.dump(forward, x), f"{name}.both": tpu.dump(both, x, x)}


def main(arguments: list[str]) -> str | None:
    """Parses the command line, dumps, runs and prints; returns what was printed."""
    parser = argparse.ArgumentParser(
        prog="benchmark gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", required=True, help="where the modules are written")
    parser.add_argument("--layers", nargs="+", default=["bn_relu", "evonorm_b0", "evonorm_s0", "gn_relu"])
    parser.add_argument("--shapes", nargs="+", default=["32x56x56x64"], help="like 32x56x56x64")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16", "float16"), default=["float32"])
    parser.add_argument("--platform", default="gpu", help="of JAX: gpu, cpu")
    parser.add_argument("--dump-only", action="store_true", help="write the modules and run nothing")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with jax")
    options = parser.parse_args(arguments)
    paths = []
    for layer in dict.fromkeys([hlo.BASELINE, *options.layers]):
        for shape in options.shapes:
            for dtype in options.dtypes:
                for name, module in layer_modules(layer, [int(n) for n in shape.split("x")], dtype).items():
                    paths.append(os.path.join(options.folder, f"{name}.hlo"))
                    pathlib.Path(options.folder).mkdir(parents=True, exist_ok=True)
                    pathlib.Path(paths[-1]).write_bytes(module)
    if options.dump_only:
        print(f"{len(paths)} modules in {options.folder}")
        return None
    command = [options.python, hlo.__file__, "time", options.platform, *paths]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["nothing"])[-1]
        raise Mistake(
            f"JAX must run on {options.platform}. {options.python} ended with: {last} Pass --python with an "
            "interpreter that has jax, or another --platform."
        )
    print(run.stdout)
    return run.stdout
