"""What the TPU's compiler estimates of layers and steps, on a machine without a TPU.

    python -m experiments.benchmark tpu networks --layers bn_relu evonorm_s0 --batch=64 --size=224
    python -m experiments.benchmark tpu step --config=pixpro_r50_imagenet --batch=128
    python -m experiments.benchmark tpu networks --topology=v5e:2x2 --layers bn_relu    # several chips

A step is traced and written as HLO (nothing is run), then compiled by `libtpu` through JAX (extra `tpu`, Python 3.11 or
newer). Every figure is the compiler's estimate, not a run: cycles, bytes and operations by its own model of the chip.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from experiments.benchmarks import hlo
from experiments.builders import pretext
from experiments.launch import sections
from experiments.launch.schedule import Schedule
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
IMAGENET = 1_281_167  # images, which set the steps of a schedule
PLAIN = "plain_"  # before a layer's name: its formula from the primitives of the search, with automatic gradients


def dump(function: Callable, *arguments: Any) -> bytes:
    """The serialized HLO of a function, traced for a TPU's choice of loops and not run.

    Args:
      function: of tensors; its variables must have been made.
      *arguments: tensors or `tf.TensorSpec`s of static shapes, nested as the function takes them.
    """
    with reductions.traced_for("TPU"):
        compiled = tf.function(function, jit_compile=True, autograph=False)
        return compiled.experimental_get_compiler_ir(*arguments)(stage="hlo_serialized")


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


def pretext_step(config: str, batch: int | None = None) -> tuple[bytes, int]:
    """(HLO, images) of one training step of a pretext config, optimizer and momentum encoder included.

    Args:
      config: name of a config of `pretrain`, with ':VARIANT' or without.
      batch: images on one chip; the config's global batch by default.
    """
    name, _, variant = config.partition(":")
    settings = importlib.import_module(f"experiments.configs.pretrain.{name}").get_config(variant)
    batch = batch or settings.schedule.batch
    # A TPU has no float16: half precision is bfloat16, whatever the config says for GPUs.
    half = settings.runtime.get("mixed_precision_dtype") != "float32"
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16" if half else "float32")
    try:
        schedule = sections.build(Schedule, "schedule", settings.schedule, images=IMAGENET)
        model = pretext.pretext_model(settings, schedule.steps)
        optimizer = pretext.optimizer(settings, schedule)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    optimizer.build(model.trainable_weights)
    height, width = settings.views.size
    views = {f"view{i}": tf.zeros([batch, height, width, 3]) for i in (1, 2)}
    boxes = {f"box{i}": tf.zeros([batch, 4]) for i in (1, 2)}
    return dump(lambda inputs: model.learn(inputs, optimizer)["loss"], {**views, **boxes}), batch


def compile_all(modules: dict[str, bytes], topology: str, python: str = sys.executable) -> list[dict]:
    """The compiler's reports of dumped modules, in their order; see `hlo.report`.

    Args:
      modules: name -> serialized HLO.
      topology: of the chips.
      python: an interpreter that has JAX and libtpu.

    Raises:
      Mistake: if JAX or libtpu is not there, or the topology is unknown.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, module in modules.items():
            paths.append(os.path.join(folder, f"{name}.hlo"))
            pathlib.Path(paths[-1]).write_bytes(module)
        command = [python, hlo.__file__, "estimate", topology, *paths]
        run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["nothing"])[-1]
        raise Mistake(
            f"libtpu must compile for {topology}. {python} ended with: {last} Install the extra `tpu`, or pass "
            "--python with an interpreter that has jax and libtpu."
        )
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


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
    if report["collectives"]:
        lines.append(
            "  collectives: " + ", ".join(f"{number} {kind}" for kind, number in report["collectives"].items())
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> list[dict]:
    """Parses the command line, dumps, compiles and prints; returns the rows of the table."""
    parser = argparse.ArgumentParser(
        prog="benchmark tpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", choices=["networks", "step"], help="blocks with different layers, or a config's whole step"
    )
    parser.add_argument("--topology", default="v5e:1x1", help="v5e:1x1, v5e:2x2, v4:2x2x1, v6e:2x2, ...")
    parser.add_argument("--layers", nargs="+", default=["bn_relu", "evonorm_b0", "evonorm_s0", "gn_relu"])
    parser.add_argument("--config", nargs="+", default=["pixpro_r50_imagenet"], help="configs of pretrain, for `step`")
    parser.add_argument("--batch", type=int, help="images per chip; 64 for networks, the config's for a step")
    parser.add_argument("--size", type=int, default=224, help="height and width for networks, pixels")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"], help="for networks")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with jax and libtpu")
    parser.add_argument("--operations", type=int, default=10, help="how many of the costliest operations to list")
    options = parser.parse_args(arguments)
    if options.topology.split(":")[0] not in CHIPS:
        parser.error(f"--topology must begin with one of {', '.join(CHIPS)}. Received {options.topology!r}.")
    modules, images = {}, {}
    if options.what == "networks":
        for layer in options.layers:
            images[layer] = options.batch or 64
            modules[layer] = network_step(layer, images[layer], options.size, options.dtype)
    else:
        for config in options.config:
            name = config.replace(":", "-")
            modules[name], images[name] = pretext_step(config, options.batch)
    reports = compile_all(modules, options.topology, options.python)
    rows = [row(report, images[report["module"]]) for report in reports]
    print(f"The compiler's estimate for {options.topology}, not a run.\n\n{table(rows)}\n")
    for report in reports:
        print(costliest(report, options.operations))
    return rows
