"""Time and memory of each layer against BatchNorm and ReLU: `python -m experiments.benchmark layers`.

All numbers of one table come from one process, with interleaved rounds and the median over the rounds; compare the
ratios, because milliseconds depend on the load of the machine. "plain" is the paper's formula written directly in
TensorFlow (`tf.math.reduce_variance` and automatic gradients). "kept" is what the forward pass stores for the backward
pass, in units of the input. "limit" is the time that -x, one read and one write, would need for the bytes that a layer
must move if no cache holds them.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Sequence
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from tf_evonorm.layers import named

BASELINE = "bn_relu"
LAYERS = (
    "evonorm_b0", "evonorm_b1", "evonorm_b2", "evonorm_s0", "evonorm_s1", "evonorm_s2",
    BASELINE, "gn_relu", "ln_relu", "frn",
)  # fmt: skip
# The two ways of BatchNorm and ReLU, whatever the rule: compiled loops that keep the input alone, and the fused kernel.
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "bn_relu_loops": ("bn_relu", {"jit_compile": True}),
    "bn_relu_kernel": ("bn_relu", {"jit_compile": False}),
}
SHAPES = ("32x56x56x64", "32x28x28x256", "32x7x7x2048")
# Reads and writes of a whole input. Forward: the statistics read x, the formula reads x and writes y. Backward: the
# sums read x and dy, the formula reads both and writes dx.
PASSES = {"forward": 3, "both": 8}


def plain(
    layer: str,
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    v: tf.Tensor,
    groups: int = 32,
    epsilon: float = 1e-5,
) -> tf.Tensor:
    """Computes an EvoNorm layer in training mode as the paper prints it, channels last: the slow reference.

    Its second derivatives are correct too, unlike those of `tf.nn.moments`, which holds the mean constant.

    Args:
      layer: "evonorm_b0" ... "evonorm_s2".
      x: [B, ..., C] floating point.
      gamma, beta, v: [C] of x's dtype.
      groups: number of groups, a divisor of C; S series only.
      epsilon: added inside every square root.
    """
    between = list(range(1, len(x.shape) - 1))
    kind = layer[-2:].upper()

    def root(square: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(square + epsilon)

    if kind[0] == "S":
        split = tf.reshape(x, [*tf.unstack(tf.shape(x))[:-1], groups, x.shape[-1] // groups])
        axes = [*between, len(x.shape)]
        if kind == "S2":
            square = tf.reduce_mean(tf.square(split), axes, keepdims=True)
        else:
            square = tf.math.reduce_variance(split, axes, keepdims=True)
        gate = tf.sigmoid(v * x if kind == "S0" else x)
        deviation = tf.reshape(tf.broadcast_to(root(square), tf.shape(split)), tf.shape(x))
        return x * gate / deviation * gamma + beta
    batch = root(tf.math.reduce_variance(x, [0, *between]))
    if kind == "B0":
        second = v * x + root(tf.math.reduce_variance(x, between, keepdims=True))
    else:
        mean_square = root(tf.reduce_mean(tf.square(x), between, keepdims=True))
        second = (x + 1) * mean_square if kind == "B1" else mean_square - x
    return x / tf.maximum(batch, second) * gamma + beta


def steps(forward: Callable, variables: Sequence[tf.Variable], mode: str, x: tf.Tensor) -> list[Callable]:
    """Compiles (forward, forward and backward) as functions of (x, dy)."""

    def both(x: tf.Tensor, dy: tf.Tensor) -> tuple:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = forward(x)
        return y, tape.gradient(y, [x, *variables], dy)

    functions = (tf.function(f, jit_compile=mode == "xla") for f in (lambda x, dy: forward(x), both))
    return [function.get_concrete_function(x, x) for function in functions]


def kept_bytes(forward: Callable, variables: Sequence[tf.Variable], x: tf.Tensor) -> int:
    """Returns the bytes of tensors of the forward pass, inputs included, that the backward pass reads."""
    kept: dict[Any, int] = {}

    @tf.function
    def both(x: tf.Tensor, dy: tf.Tensor) -> list:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = forward(x)
        before = set(y.graph.get_operations())
        gradients = tape.gradient(y, [x, *variables], dy)
        for operation in set(y.graph.get_operations()) - before:
            for tensor in operation.inputs:
                tensor = _origin(tensor)
                if tensor.op in before and tensor is not dy and tensor.dtype.is_floating:
                    kept[tensor.ref()] = (tensor.shape.num_elements() or 0) * tensor.dtype.size
        return gradients

    both.get_concrete_function(x, x)
    return sum(kept.values())


def _origin(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the tensor whose bytes another one shares under a new shape or name."""
    while tensor.op.type in ("Reshape", "Identity", "IdentityN"):
        tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
    return tensor


def measure(
    names: Sequence[str], shapes: Sequence[str], dtypes: Sequence[str], modes: Sequence[str], rounds: int
) -> list[dict]:
    """Returns a dict per layer, shape, dtype and mode: times in ms, ratios, bytes kept over bytes of the input."""
    rows: list[dict] = []
    for shape in shapes:
        for dtype in dtypes:
            for mode in modes:
                rows += _measured_together(names, shape, dtype, mode, rounds)
    return rows


def _measured_together(names: Sequence[str], shape: str, dtype: str, mode: str, rounds: int) -> list[dict]:
    size = [int(n) for n in shape.split("x")]
    random = np.random.default_rng(0)
    x, dy = (tf.constant(random.normal(size=size), dtype) for _ in range(2))
    cases: dict[Any, tuple[Callable, list]] = {}
    for name in dict.fromkeys([BASELINE, *names]):
        cases.update(_cases(name, size, dtype))
    runs = {case: steps(*cases[case], mode, x) for case in cases}
    runs["copy"] = steps(tf.negative, [], mode, x)[:1]
    medians = _interleaved(runs, x, dy, rounds)
    return [
        {
            "layer": name,
            "shape": shape,
            "dtype": dtype,
            "mode": mode,
            **_ratios(name, medians),
            **{key: kept_bytes(*cases[case], x) / _bytes(x) for key, case in _kept(name) if case in cases},
        }
        for name in names
    ]


def _cases(name: str, size: Sequence[int], dtype: str) -> dict[Any, tuple[Callable, list]]:
    """Returns the layer of a name and, for an EvoNorm, its plain formula: case -> (forward, variables)."""
    known, options = WAYS.get(name, (name, {}))
    make: Any = named.norm_act(known, **options)
    layer = make(dtype=dtype if dtype == "float32" else f"mixed_{dtype}")
    layer.build(size)
    cases: dict[Any, tuple[Callable, list]] = {name: (functools.partial(layer, training=True), layer.trainable_weights)}
    if name.startswith("evonorm"):
        gamma, beta, v = tf.ones(size[-1:], dtype), tf.zeros(size[-1:], dtype), tf.ones(size[-1:], dtype)
        groups = getattr(layer, "fitting_groups", 1)
        cases[name, "plain"] = functools.partial(plain, name, gamma=gamma, beta=beta, v=v, groups=groups), []
    return cases


def _interleaved(runs: dict[Any, list[Callable]], x: tf.Tensor, dy: tf.Tensor, rounds: int) -> dict[Any, list[float]]:
    """Returns the median duration in ms of each step of each case, after one warm-up call."""
    for run in runs.values():
        for step in run:
            step(x, dy)
    times: dict[Any, list[list[float]]] = {case: [[] for _ in run] for case, run in runs.items()}
    for _ in range(rounds):
        for case, run in runs.items():
            for step, taken in zip(run, times[case]):
                start = time.perf_counter()
                result = step(x, dy)
                taken.append(time.perf_counter() - start)
                del result
    return {case: [1e3 * float(np.median(taken)) for taken in parts] for case, parts in times.items()}


def _ratios(name: str, medians: dict[Any, list[float]]) -> dict[str, float | None]:
    """Returns times in ms of a layer, and their ratios to the baseline, to the plain formula and to the limit."""
    row: dict[str, float | None] = {}
    for i, part in enumerate(("forward", "both")):
        own = medians[name][i]
        row[part] = own
        row[f"{part}/bn"] = own / medians[BASELINE][i]
        row[f"plain/{part}"] = medians[name, "plain"][i] / own if (name, "plain") in medians else None
        row[f"{part}/limit"] = own / (medians["copy"][0] * PASSES[part] / 2)
    return row


def _kept(name: str) -> list[tuple[str, Any]]:
    return [("kept", name), ("plain kept", (name, "plain"))]


def _bytes(x: tf.Tensor) -> int:
    return x.shape.num_elements() * x.dtype.size


COLUMNS = {
    "layer": "layer",
    "shape": "shape",
    "dtype": "dtype",
    "mode": "mode",
    "forward": "forward, ms",
    "both": "forward + backward, ms",
    "forward/bn": "forward / BN",
    "both/bn": "both / BN",
    "plain/forward": "plain / ours, forward",
    "plain/both": "plain / ours, both",
    "forward/limit": "forward / limit",
    "both/limit": "both / limit",
    "kept": "kept / input",
    "plain kept": "plain's kept / input",
}


def table(rows: list[dict]) -> str:
    """Returns the rows as a Markdown table."""

    def shown(value: Any) -> str:
        return "" if value is None else value if isinstance(value, str) else f"{value:.2f}"

    from experiments.studies.runs import markdown  # brings Model Garden, which Keras 3 does not have

    return markdown(list(COLUMNS.values()), [[shown(row.get(key)) for key in COLUMNS] for row in rows])


def main(argv: Optional[Sequence[str]] = None) -> list[dict]:
    """Prints the table and returns its rows."""
    parser = argparse.ArgumentParser(prog="experiments.benchmark layers", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--layers",
        nargs="+",
        choices=(*LAYERS, *WAYS),
        default=list(LAYERS),
        metavar="NAME",
        help=", ".join((*LAYERS, *WAYS)),
    )
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), help="like 32x56x56x64")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16", "float16"), default=["float32"])
    parser.add_argument("--modes", nargs="+", choices=("graph", "xla"), default=["graph", "xla"])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(argv)
    gpus = len(tf.config.list_physical_devices("GPU"))
    print(f"TensorFlow {tf.__version__}, {gpus} GPUs; {time.strftime('%Y-%m-%d')}")
    rows = measure(options.layers, options.shapes, options.dtypes, options.modes, options.rounds)
    print(table(rows))
    return rows


if __name__ == "__main__":
    main()
