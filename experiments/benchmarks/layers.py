"""How fast each layer is: `python -m experiments.benchmark layers`, a table of time and memory against BatchNorm + ReLU.

Every number of one table comes from one process, rounds interleaved, median of the rounds; read the ratios, because
milliseconds move with what else the machine does. "plain" is the paper's formula as one would write it in TensorFlow
(`tf.math.reduce_variance` and automatic gradients). "kept" is what the forward pass leaves for the backward pass, in units of the input.
"limit" is the time in which -x, one reading and one writing, would move the bytes that a layer must move if nothing stays in a cache.
"""

from __future__ import annotations

import argparse
import functools
import time

import numpy as np
import tensorflow as tf

import tf_evonorm

LAYERS = {
    "EvoNormB0": tf_evonorm.EvoNormB0,
    "EvoNormB1": tf_evonorm.EvoNormB1,
    "EvoNormB2": tf_evonorm.EvoNormB2,
    "EvoNormS0": functools.partial(tf_evonorm.EvoNormS0, groups="auto"),
    "EvoNormS1": functools.partial(tf_evonorm.EvoNormS1, groups="auto"),
    "EvoNormS2": functools.partial(tf_evonorm.EvoNormS2, groups="auto"),
    "BatchNormAct": tf_evonorm.BatchNormAct,
    "GroupNormAct": functools.partial(tf_evonorm.GroupNormAct, groups="auto"),
    "LayerNormAct": tf_evonorm.LayerNormAct,
    "FilterResponseNormAct": tf_evonorm.FilterResponseNormAct,
}
SHAPES = ("32x56x56x64", "32x28x28x256", "32x7x7x2048")
# Readings and writings of a whole input. Forward: statistics read x, the formula reads x and writes y. Backward: sums read x and dy, the
# formula reads both and writes dx.
PASSES = {"forward": 3, "both": 8}


def plain(layer: str, x, gamma, beta, v, groups: int = 32, epsilon: float = 1e-5):
    """An EvoNorm layer in training mode as the paper prints it, channels last: the slow and obvious reference.

    Args:
      layer: "EvoNormB0" ... "EvoNormS2".
      x: [B, ..., C] floating point.
      gamma, beta, v: [C] of x's dtype.
      groups: divisor of C, S series only.
      epsilon: inside every root.

    Its second derivatives are right too; with `tf.nn.moments` they are not, which holds the mean constant.
    """
    between = list(range(1, len(x.shape) - 1))
    kind = layer[-2:]

    def root(square):
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


def steps(forward, variables, mode: str, x):
    """(forward, forward and backward) as compiled functions of (x, dy)."""

    def both(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = forward(x)
        return y, tape.gradient(y, [x, *variables], dy)

    functions = (tf.function(f, jit_compile=mode == "xla") for f in (lambda x, dy: forward(x), both))
    return [function.get_concrete_function(x, x) for function in functions]


def kept_bytes(forward, variables, x) -> int:
    """Bytes that the forward pass makes or is given and the backward pass reads."""
    kept = {}

    @tf.function
    def both(x, dy):
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


def _origin(tensor):
    """The tensor whose bytes another one shows under a new shape or name."""
    while tensor.op.type in ("Reshape", "Identity", "IdentityN"):
        tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
    return tensor


def measure(names, shapes, dtypes, modes, rounds: int) -> list[dict]:
    """One dict per (layer, shape, dtype, mode): times in ms, ratios, bytes kept over bytes of the input."""
    rows = []
    for shape in shapes:
        for dtype in dtypes:
            for mode in modes:
                rows += _measured_together(names, shape, dtype, mode, rounds)
    return rows


def _measured_together(names, shape, dtype, mode, rounds):
    size = [int(n) for n in shape.split("x")]
    random = np.random.default_rng(0)
    x, dy = (tf.constant(random.normal(size=size), dtype) for _ in range(2))
    cases = {}
    for name in ["BatchNormAct", *(n for n in names if n != "BatchNormAct")]:
        layer = LAYERS[name](dtype=dtype if dtype == "float32" else f"mixed_{dtype}")
        layer.build(size)
        cases[name] = functools.partial(layer, training=True), layer.trainable_weights
        if name.startswith("EvoNorm"):
            gamma, beta, v = tf.ones(size[-1:], dtype), tf.zeros(size[-1:], dtype), tf.ones(size[-1:], dtype)
            groups = getattr(layer, "fitting_groups", 1)
            cases[name, "plain"] = functools.partial(plain, name, gamma=gamma, beta=beta, v=v, groups=groups), []
    runs = {case: steps(*cases[case], mode, x) for case in cases}
    runs["copy"] = steps(tf.negative, [], mode, x)[:1]
    for run in runs.values():
        for step in run:
            step(x, dy)
    times = {case: ([], []) for case in runs}
    for _ in range(rounds):
        for case, run in runs.items():
            for step, taken in zip(run, times[case]):
                start = time.perf_counter()
                result = step(x, dy)
                taken.append(time.perf_counter() - start)
                del result
    medians = {case: [1e3 * float(np.median(taken)) for taken in pair if taken] for case, pair in times.items()}
    rows = []
    for name in names:
        row = {"layer": name, "shape": shape, "dtype": dtype, "mode": mode}
        row["forward"], row["both"] = medians[name]
        for i, part in enumerate(("forward", "both")):
            row[f"{part}/bn"] = medians[name][i] / medians["BatchNormAct"][i]
            row[f"plain/{part}"] = medians[name, "plain"][i] / medians[name][i] if (name, "plain") in medians else None
            row[f"{part}/limit"] = medians[name][i] / (medians["copy"][0] * PASSES[part] / 2)
        row["kept"] = kept_bytes(*cases[name], x) / (x.shape.num_elements() * x.dtype.size)
        if (name, "plain") in medians:
            row["plain kept"] = kept_bytes(*cases[name, "plain"], x) / (x.shape.num_elements() * x.dtype.size)
        rows.append(row)
    return rows


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
    """The rows as a Markdown table."""

    def shown(value):
        return "" if value is None else value if isinstance(value, str) else f"{value:.2f}"

    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    lines += [[shown(row.get(key)) for key in COLUMNS] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(argv=None) -> list[dict]:
    """Prints the table; `argv` without the program's name."""
    parser = argparse.ArgumentParser(prog="benchmark layers", description=__doc__)
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), help="like 32x56x56x64")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16", "float16"), default=["float32"])
    parser.add_argument("--modes", nargs="+", choices=("graph", "xla"), default=["graph", "xla"])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(argv)
    print(
        f"TensorFlow {tf.__version__}, {len(tf.config.list_physical_devices('GPU'))} GPUs; {time.strftime('%Y-%m-%d')}"
    )
    rows = measure(options.layers, options.shapes, options.dtypes, options.modes, options.rounds)
    print(table(rows))
    return rows


if __name__ == "__main__":
    main()
