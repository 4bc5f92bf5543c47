"""Dumped HLO modules through JAX, without TensorFlow: estimates of the TPU's compiler, and runs on what JAX has.

    python hlo.py estimate v5e:1x1 MODULE.hlo ...    # a JSON line each: the compiler's estimate for a chip, not a run
    python hlo.py check v5e:1x1 MODULE.hlo ...       # the same at the least effort: whether the compiler takes a module
    python hlo.py sums MODULE.hlo ...                # sums over replicas that a module asks for; compiles nothing
    python hlo.py time gpu MODULE.hlo ...            # a JSON line each and a table: runs on random inputs, checked
                                                     # against the CPU

`libtpu` compiles for TPUs on any x86-64 Linux machine. This file imports no TensorFlow and nothing of this project, so
that it alone can be taken to a machine that has an accelerator and JAX.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
import time
from importlib import metadata
from typing import Any

import ml_dtypes
import numpy as np

# Without a TPU, libtpu would wait for the machine's metadata; these settings describe one host.
SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "JAX_PLATFORMS": "cpu",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several compilers may run side by side, since none holds a chip
}
_DTYPES = {
    "f64": np.float64,
    "f32": np.float32,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "i1": np.bool_,
    "i8": np.int8,
    "ui8": np.uint8,
    "i32": np.int32,
    "ui32": np.uint32,
    "i64": np.int64,
    "ui64": np.uint64,
}
BASELINE = "bn_relu"
LEAST_EFFORT = 9  # of XLA's levels 9, 19, 29 and 39
# Largest difference from the CPU over the largest value, in float32 and in half precision: sums in another order.
TOLERANCE, HALF_TOLERANCE = 1e-3, 3e-2
_COLLECTIVE = re.compile(r"= (\S.*?) (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(")
_ENTRY = re.compile(r"^\s+(?:ROOT )?%(\S+) = (.*?) ([\w-]+)\((.*)$")


def read(path: str) -> Any:
    """The StableHLO module of a serialized HloModuleProto."""
    from jax._src.interpreters import mlir as jax_mlir
    from jax._src.lib import _jax
    from jaxlib.mlir import ir

    with jax_mlir.make_ir_context():
        module = ir.Module.parse(_jax.mlir.hlo_to_stablehlo(pathlib.Path(path).read_bytes()))
        _remove_copies(module.operation)
    return module


def inputs(module: Any, seed: int = 0) -> list[np.ndarray]:
    """Random inputs for a module, in the order of its parameters: standard normal, zeros where they are integers.

    Parameters of rank 0 or 1 are drawn between 0.5 and 1.5, since variances and scales are among them.
    """
    signature = next(line for line in str(module).splitlines() if "@main(" in line).split("->")[0]
    random, drawn = np.random.default_rng(seed), []
    for shape in re.findall(r"%arg\d+: tensor<([^>]+)>", signature):
        *sizes, kind = shape.split("x")
        shape, dtype = tuple(map(int, sizes)), _DTYPES[kind]
        if np.dtype(dtype).kind not in "fV":
            drawn.append(np.zeros(shape, dtype))
        else:
            values = random.normal(size=shape) if len(shape) > 1 else random.uniform(0.5, 1.5, shape)
            drawn.append(values.astype(dtype))
    return drawn


def run(module: Any, arguments: list[np.ndarray], platform: str = "cpu", repeats: int = 0) -> tuple[list, list[float]]:
    """(outputs, seconds of each repeat) of a module on the first device of a platform of JAX."""
    import jax
    from jax._src.lib import xla_client

    jax.config.update("jax_enable_x64", True)  # steps count in int64
    device = jax.devices(platform)[0]
    executable = device.client.compile_and_load(module, xla_client.DeviceList((device,)), xla_client.CompileOptions())

    def once():
        placed = jax.block_until_ready([jax.device_put(argument, device) for argument in arguments])
        start = time.perf_counter()  # a step may take over the memory of its variables, so that each run has its own
        outputs = executable.execute_sharded(placed).disassemble_into_single_device_arrays()
        outputs = jax.block_until_ready([output[0] for output in outputs])
        return outputs, time.perf_counter() - start

    outputs, _ = once()
    seconds = [once()[1] for _ in range(repeats)]
    return [np.asarray(output) for output in outputs], seconds


def timing(path: str, platform: str, repeats: int = 20, bandwidth: float | None = None) -> dict:
    """What a module takes on a device, and its largest relative difference from the CPU's outputs.

    Args:
      path: a file with a serialized HloModuleProto of one replica.
      platform: of JAX, such as 'gpu' or 'cpu'.
      repeats: of the run; the median counts.
      bandwidth: of a copy on that device, see `copy_bandwidth`; measured if it is not given.

    Returns:
      'module', 'platform', 'device', 'ms', 'bytes' (inputs and outputs, each once: the least that must move),
      'copy_ratio' (the time over that of a copy of so many bytes), 'largest_difference' and 'agrees'.
    """
    import jax

    module = read(path)
    arguments = inputs(module)
    outputs, seconds = run(module, arguments, platform, repeats)
    expected = run(module, arguments, "cpu")[0]
    apart = [_apart(output, other) for output, other in zip(outputs, expected)]
    moved = sum(array.nbytes for array in (*arguments, *outputs))
    bandwidth = bandwidth or copy_bandwidth(platform)
    median, difference = float(np.median(seconds)), max(apart, default=0.0)
    half = any(array.dtype.itemsize == 2 for array in (*arguments, *outputs))
    return {
        "module": pathlib.Path(path).stem,
        "platform": platform,
        "device": jax.devices(platform)[0].device_kind,
        "ms": 1e3 * median,
        "bytes": moved,
        "copy_ratio": median * bandwidth / moved,
        "largest_difference": difference,
        "agrees": difference <= (HALF_TOLERANCE if half else TOLERANCE),
    }


def copy_bandwidth(platform: str, size: int = 2**28, repeats: int = 10) -> float:
    """Bytes per second that -x reads and writes on the first device of a platform, for an array of `size` bytes."""
    import jax

    x = jax.device_put(np.zeros(size // 4, np.float32), jax.devices(platform)[0])
    negative, seconds = jax.jit(lambda x: -x), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(negative(x))
        seconds.append(time.perf_counter() - start)
    return 2 * size / float(np.median(seconds[1:]))


def times_table(timings: list[dict], baseline: str = BASELINE) -> str:
    """Timings as Markdown. A name is LAYER.REST; the ratio is to the baseline with the same rest."""
    ms = {timing["module"]: timing["ms"] for timing in timings}
    lines = ["| module | ms | to BatchNorm + ReLU | to a copy | largest difference | agrees |", "| --- " * 6 + "|"]
    for one in timings:
        other = ms.get(f"{baseline}.{one['module'].partition('.')[2]}")
        ratio = "" if other is None else f"{one['ms'] / other:.2f}"
        lines.append(
            f"| {one['module']} | {one['ms']:.3f} | {ratio} | {one['copy_ratio']:.2f} "
            f"| {one['largest_difference']:.1e} | {'yes' if one['agrees'] else 'NO'} |"
        )
    return "\n".join(lines)


def _apart(output, expected):
    output, expected = np.asarray(output, np.float64), np.asarray(expected, np.float64)
    return float(np.max(np.abs(output - expected), initial=0) / max(np.max(np.abs(expected), initial=0), 1e-30))


def compiled(path: str, topology: str, quick: bool = False) -> tuple[Any, float]:
    """The executable of a serialized HLO module, and the seconds that compiling took.

    Args:
      path: a file with a serialized HloModuleProto of one replica, or of as many as the topology has chips.
      topology: such as 'v5e:1x1', 'v5e:2x2', 'v4:2x2x1', 'v6e:2x2'.
      quick: with the compiler's least effort, in half the time, to see whether it takes a module; a slow program.
    """
    from jax._src.lib import xla_client
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    module = read(path)
    replicas = len(devices)
    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = replicas, 1
    if quick:
        build = options.executable_build_options
        build.optimization_level = build.memory_fitting_level = LEAST_EFFORT
    start = time.perf_counter()
    executable = devices[0].client.compile(module, xla_client.DeviceList(tuple(devices[:replicas])), options)
    return executable, time.perf_counter() - start


def report(path: str, topology: str, quick: bool = False) -> dict:
    """The compiler's report on one module.

    Args:
      path, topology, quick: see `compiled`.

    Returns:
      'module', 'topology', 'estimated_cycles', 'flops', 'bytes', 'temporary_bytes', 'argument_bytes', 'output_bytes',
      'compile_seconds'; 'versions' of jax and libtpu; 'operations', a list of {'name', 'kind', 'source', 'cycles'},
      costliest first; 'collectives', see `collectives`.
    """
    executable, seconds = compiled(path, topology, quick)
    text = executable.hlo_modules()[0].to_string()
    cost, memory = executable.cost_analysis(), executable.get_compiled_memory_stats()
    operations = entry_operations(text)
    return {
        "module": pathlib.Path(path).stem,
        "topology": topology,
        "estimated_cycles": sum(operation["cycles"] for operation in operations),
        "flops": cost.get("flops", 0.0),
        "bytes": cost.get("bytes accessed", 0.0),
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "compile_seconds": round(seconds, 1),
        "versions": {name: metadata.version(name) for name in ("jax", "libtpu")},
        "collectives": collectives(text),
        "operations": sorted(operations, key=lambda operation: -operation["cycles"]),
    }


def entry_operations(text: str) -> list[dict]:
    """The operations of a compiled module's entry computation that have an estimate of cycles."""
    found = []
    for line in text.split("\nENTRY")[-1].splitlines():
        cycles, match = re.search(r'estimated_cycles":"(\d+)"', line), _ENTRY.match(line)
        if cycles and match:
            source = re.search(r'op_name="([^"]*)"', line)
            kind = match.group(3)
            if kind == "fusion":
                kind = _fusion_kind(match.group(1))
            source_name = source.group(1) if source else ""
            found.append({"name": match.group(1), "kind": kind, "source": source_name, "cycles": int(cycles.group(1))})
    return found


def _fusion_kind(name):
    """'fusion.12' -> 'fusion', 'convolution_add_fusion.3' -> 'convolution fusion'."""
    stem = name.split(".")[0]
    for part in ("convolution", "multiply_reduce", "reduce", "pad", "select_and_scatter", "scatter", "copy"):
        if part in stem:
            return f"{part} fusion"
    return "fusion"


def collectives(text: str) -> dict[str, dict[str, int]]:
    """What a compiled module exchanges between chips: kind -> {'number', 'bytes'}, the bytes those of the results."""
    found: dict[str, dict[str, int]] = {}
    for shapes, kind in _COLLECTIVE.findall(text):
        one = found.setdefault(kind, {"number": 0, "bytes": 0})
        one["number"] += 1
        for dtype, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            width = int(re.sub(r"\D", "", dtype) or 8) // 8
            one["bytes"] += width * int(np.prod([int(size) for size in sizes.split(",") if size]))
    return found


def requested(module: Any) -> dict[str, int]:
    """The sums over replicas that a module asks for, before a compiler merges them: 'number' and 'bytes'."""
    types = re.findall(r'"stablehlo\.all_reduce".*?\}\) : \(tensor<([^>]*)>', str(module), re.DOTALL)
    sizes = [[*map(int, sizes[:-1]), np.dtype(_DTYPES[sizes[-1]]).itemsize] for sizes in (t.split("x") for t in types)]
    return {"number": len(sizes), "bytes": int(sum(np.prod(size) for size in sizes))}


def _remove_copies(operation):
    """TensorFlow's `copy` becomes an operation that the converter does not know; it changes nothing."""
    for region in operation.regions:
        for block in region.blocks:
            for inner in list(block.operations):
                if inner.operation.name == "mhlo.copy":
                    inner.operation.results[0].replace_all_uses_with(inner.operation.operands[0])
                    inner.operation.erase()
                else:
                    _remove_copies(inner.operation)


def main(arguments: list[str]) -> None:
    """Runs one verb, `estimate`, `check`, `sums` or `time`; see the head of this file."""
    verb, where, *paths = arguments
    if verb in ("estimate", "check"):
        os.environ.update(SETTINGS)
        for path in paths:
            print(json.dumps(report(path, where, quick=verb == "check")), flush=True)
        return
    if verb == "sums":
        for path in (where, *paths):
            print(json.dumps({"module": pathlib.Path(path).stem, **requested(read(path))}), flush=True)
        return
    bandwidth, timings = copy_bandwidth(where), []
    for path in paths:
        timings.append(timing(path, where, bandwidth=bandwidth))
        print(json.dumps(timings[-1]), flush=True)
    print(f"\n{timings[0]['device']}, a copy moves {bandwidth / 1e9:.0f} GB/s\n\n{times_table(timings)}")


if __name__ == "__main__":
    main(sys.argv[1:])
