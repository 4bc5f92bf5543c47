"""What the TPU's compiler estimates of layers and steps, on a machine without a TPU.

    python -m experiments.benchmark tpu layers --layers bn_relu evonorm_s0 --batch=64 --size=56 --channels=64
    python -m experiments.benchmark tpu networks --layers bn_relu evonorm_s0 --batch=64 --size=224
    python -m experiments.benchmark tpu step --config=pixpro_r50_imagenet --batch=128
    python -m experiments.benchmark tpu step --config=pixpro_r50_imagenet --topology=v5e:2x2    # one of four chips

A step is traced and written as HLO (nothing is run), then compiled by `libtpu` through JAX (extra `tpu`, Python 3.11 or
newer). Every figure is the compiler's estimate, not a run: cycles, bytes and operations by its own model of the chip.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from experiments.benchmarks import hlo, steps
from experiments.benchmarks import replicas as replica
from tf_evonorm.backbones import resnet
from tf_evonorm.functional import reductions
from tf_evonorm.layers import named
from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.space import graph
from tf_evonorm.search.space.graph_layer import layer_from_graph

# Clock (Hz), memory bandwidth (bytes/s), peak (bf16 FLOP/s) and memory (bytes) of a chip, as the vendor publishes them.
CHIPS = {
    "v4": (1.05e9, 1228e9, 275e12, 32e9),
    "v5e": (0.94e9, 819e9, 197e12, 16e9),
    "v6e": (0.94e9, 1640e9, 918e12, 32e9),
}
PLAIN = "plain_"  # before a layer's name: its formula from the primitives of the search, with automatic gradients


def dump(function: Callable, *arguments: Any) -> bytes:
    """The serialized HLO of a function, traced for a TPU's choice of loops and not run.

    Args:
      function: of tensors; its variables must have been made.
      *arguments: tensors or `tf.TensorSpec`s of static shapes, nested as the function takes them.
    """
    arguments = tf.nest.map_structure(
        lambda x: tf.zeros(x.shape, x.dtype) if isinstance(x, tf.TensorSpec) else x, arguments
    )
    with reductions.traced_for("TPU"):
        compiled = tf.function(function, jit_compile=True, autograph=False)
        return compiled.experimental_get_compiler_ir(*arguments)(stage="hlo_serialized")


def layer_step(layer: str, batch: int, size: int, channels: int, dtype: str = "bfloat16") -> bytes:
    """HLO of the gradients of a layer between two convolutions of one position, the smallest network that it can be in.

    Args:
      layer: a name of `tf_evonorm.layers.named`.
      batch, size, channels: the input is [batch, size, size, channels].
      dtype: of the computation; variables are float32.
    """
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16" if dtype == "bfloat16" else dtype)
    try:
        make: Any = named.norm_act(layer)
        images = tf.keras.Input((size, size, channels))
        x = make()(tf.keras.layers.Conv2D(channels, 1, use_bias=False)(images))
        model = tf.keras.Model(images, tf.keras.layers.Conv2D(channels, 1, use_bias=False)(x))
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")

    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=True)
        return tape.gradient(y, [x, *model.trainable_variables], dy)

    spec = tf.TensorSpec([batch, size, size, channels], dtype)
    return dump(step, spec, spec)


def network_step(layer: str, batch: int, size: int, dtype: str = "bfloat16") -> bytes:
    """HLO of loss and gradients of one bottleneck block per level of ResNet-50.

    Args:
      layer: a name of `tf_evonorm.layers.named`, or 'plain_' and the name of a graph of the search, such as 'plain_s0'.
      batch: images per step.
      size: height and width of the images, pixels.
      dtype: of the computation; variables are float32.
    """
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16" if dtype == "bfloat16" else dtype)
    try:
        plain = layer.startswith(PLAIN)
        norm_act = layer_from_graph(graph.BASELINES[layer.removeprefix(PLAIN)]) if plain else named.norm_act(layer)
        model = resnet(50, blocks=(1, 1, 1, 1), norm_act=norm_act, input_size=(size, size, 3))
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")

    def step(images):
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_mean(tf.cast(level, tf.float32) ** 2) for level in model(images, True).values()])
        return loss, tape.gradient(loss, model.trainable_variables)

    return dump(step, tf.zeros([batch, size, size, 3]))


def step(
    config: str, batch: int | None = None, changes: Sequence[str] = (), part: str = "", replicas: int = 1
) -> tuple[bytes, int]:
    """(HLO, images per chip) of one whole training step of a config; see `steps.step_of`.

    Args:
      config, batch, changes, part: as there.
      replicas: of which it is one; their sums are XLA's all-reduce.
    """
    strategy = replica.one_of(replicas)
    with strategy.scope():
        made = steps.step_of(config, batch, changes, part)
    function = made.function if replicas == 1 else lambda *inputs: strategy.run(made.function, inputs)
    return dump(function, *made.inputs), made.images


def compile_all(
    modules: dict[str, bytes],
    topology: str,
    python: str = sys.executable,
    limit: float | None = None,
    quick: bool = False,
) -> list[dict]:
    """The compiler's reports of dumped modules, in their order; see `hlo.report`.

    Args:
      modules: name -> serialized HLO.
      topology: of the chips.
      python: an interpreter that has JAX and libtpu.
      limit: seconds for all; the reports of those that were not done by then are left out.
      quick: see `hlo.compiled`.

    Raises:
      Mistake: if JAX or libtpu is not there, the topology is unknown, or a module does not compile.
    """
    return _of_hlo(modules, ["check" if quick else "estimate", topology], python, limit)


def sums(modules: dict[str, bytes], python: str = sys.executable) -> list[dict]:
    """The sums over replicas that modules ask for, before a compiler merges them; see `hlo.requested`."""
    return _of_hlo(modules, ["sums"], python, None)


def _of_hlo(modules, verb, python, limit):
    """What `hlo.py VERB` prints of modules."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, module in modules.items():
            paths.append(os.path.join(folder, f"{name}.hlo"))
            pathlib.Path(paths[-1]).write_bytes(module)
        command = [python, hlo.__file__, *verb, *paths]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired as late:
            return _reports((late.stdout or b"").decode())
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["nothing"])[-1]
        raise Mistake(
            f"JAX and libtpu must do `{' '.join(verb)}`. {python} ended with: {last} Install the extra `tpu`, or pass "
            "--python with an interpreter that has jax and libtpu."
        )
    return _reports(run.stdout)


def _reports(printed):
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def chips(topology: str) -> int:
    """How many chips a topology has: 4 of 'v5e:2x2'."""
    return math.prod(int(size) for size in topology.partition(":")[2].split("x"))


def row(report: dict, images: int) -> dict:
    """Figures of a report per step and chip: milliseconds, images/s, GB moved and held, shares of the chip's peaks."""
    clock, bandwidth, peak, memory = CHIPS[report["topology"].split(":")[0]]
    seconds = report["estimated_cycles"] / clock
    held = report["temporary_bytes"] + report["argument_bytes"]
    return {
        "module": report["module"],
        "cycles": report["estimated_cycles"],
        "ms": seconds * 1e3,
        "images_per_second": images / seconds,
        "moved_gb": report["bytes"] / 1e9,
        "bytes_ms": report["bytes"] / bandwidth * 1e3,
        "tflop": report["flops"] / 1e12,
        "peak_share": report["flops"] / seconds / peak,
        "held_gb": held / 1e9,
        "fits": held < memory,
    }


def table(rows: list[dict]) -> str:
    """Rows as Markdown; the ratio is to the first row."""
    lines = [
        "| | estimated ms | to the first | images/s per chip | GB moved | ms of bytes alone | TFLOP | share of peak "
        "| GB held | fits |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in rows:
        lines.append(
            f"| {one['module']} | {one['ms']:.2f} | {one['ms'] / rows[0]['ms']:.2f} | {one['images_per_second']:.0f} "
            f"| {one['moved_gb']:.2f} | {one['bytes_ms']:.2f} | {one['tflop']:.2f} | {one['peak_share']:.0%} "
            f"| {one['held_gb']:.2f} | {'yes' if one['fits'] else 'NO'} |"
        )
    return "\n".join(lines)


def costliest(report: dict, number: int = 10) -> str:
    """Shares of the estimated cycles by kind of operation, and the costliest operations with their names."""
    total = max(report["estimated_cycles"], 1)
    kinds: dict[str, int] = {}
    for operation in report["operations"]:
        kinds[operation["kind"]] = kinds.get(operation["kind"], 0) + operation["cycles"]
    shares = sorted(kinds.items(), key=lambda item: -item[1])
    lines = [f"{report['module']}: " + ", ".join(f"{kind} {cycles / total:.1%}" for kind, cycles in shares[:8])]
    for operation in report["operations"][:number]:
        lines.append(f"  {operation['cycles'] / total:6.1%}  {operation['kind']:20} {operation['source'][-90:]}")
    if found := report["collectives"]:
        lines.append(
            "  collectives: "
            + ", ".join(f"{one['number']} {kind} of {one['bytes']:,} bytes" for kind, one in found.items())
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> list[dict]:
    """Parses the command line, dumps, compiles and prints; returns the rows of the table."""
    options = _options(arguments)
    if options.sums:
        return [_printed_sums(name, options) for name in options.config]
    record = pathlib.Path(options.record) if options.record else None
    known = json.loads(record.read_text()) if record and record.exists() else {}
    names = options.config if options.what == "step" else options.layers
    keys = {name: _key(name, options) for name in names}
    for name, key in keys.items():
        if key in known:
            continue
        module, images = _module(name, options)
        reports = compile_all({"module": module}, options.topology, options.python, options.limit)
        if not reports:
            print(f"{key}: not compiled within {options.limit:.0f} s")
            continue
        (report,) = reports
        del report["operations"][max(options.operations, 10) :]
        known[key] = {**report, "module": key, "images": images}
        if record:
            record.write_text(json.dumps(known, indent=1) + "\n")
    reports = [known[key] for key in keys.values() if key in known]
    rows = [row(report, report["images"]) for report in reports]
    print(f"The compiler's estimate for {options.topology}, not a run.\n\n{table(rows)}\n")
    for report in reports:
        print(costliest(report, options.operations))
    return rows


def _printed_sums(name, options):
    (one,) = sums({"module": _module(name, options)[0]}, options.python)
    print(f"{_key(name, options)}: {one['number']} sums over replicas of {one['bytes']:,} bytes together")
    return one


def _module(name, options):
    batch = options.batch or 64
    if options.what == "layers":
        return layer_step(name, batch, options.size, options.channels, options.dtype), batch
    if options.what == "networks":
        return network_step(name, batch, options.size, options.dtype), batch
    return step(name, options.batch, options.set, options.part, chips(options.topology))


def _key(name, options):
    """What a report is called: all that decides on it, but the versions."""
    parts = [name, options.part, *options.set]
    batch = options.batch or ("of the config" if options.what == "step" else 64)
    if options.what != "step":
        parts += [options.what, f"{options.size} px", options.dtype]
    if options.what == "layers":
        parts.append(f"{options.channels} channels")
    return ", ".join([part for part in parts if part] + [f"batch {batch}", options.topology])


def _options(arguments):
    parser = argparse.ArgumentParser(
        prog="benchmark tpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        choices=["layers", "networks", "step"],
        help="layers between two convolutions, blocks with different layers, or whole steps of configs",
    )
    parser.add_argument("--topology", default="v5e:1x1", help="v5e:1x1, v5e:2x2, v4:2x2x1, v6e:2x2, ...")
    parser.add_argument("--layers", nargs="+", default=["bn_relu", "evonorm_b0", "evonorm_s0", "gn_relu"])
    parser.add_argument(
        "--config", nargs="+", default=["pixpro_r50_imagenet"], help="configs of any program that trains, for `step`"
    )
    parser.add_argument("--set", nargs="+", default=[], help="SECTION.KEY=VALUE of the configs, for `step`")
    parser.add_argument("--part", default="", choices=["", "generator", "discriminator"], help="of a synthesis' step")
    parser.add_argument("--batch", type=int, help="images per chip; the config's for a step, otherwise 64")
    parser.add_argument("--size", type=int, default=224, help="height and width for layers and networks, pixels")
    parser.add_argument("--channels", type=int, default=64, help="for layers")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"], help="not for steps")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with jax and libtpu")
    parser.add_argument("--operations", type=int, default=10, help="how many of the costliest operations to list")
    parser.add_argument("--limit", type=float, help="seconds for the compiler, for each module")
    parser.add_argument("--sums", action="store_true", help="count a step's sums over replicas, compile nothing")
    parser.add_argument("--record", help="a JSON file of reports; what it has is not compiled again")
    options = parser.parse_args(arguments)
    if options.topology.split(":")[0] not in CHIPS:
        parser.error(f"--topology must begin with one of {', '.join(CHIPS)}. Received {options.topology!r}.")
    return options
