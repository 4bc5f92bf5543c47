"""A graph without the nodes that do not matter, and whether two graphs compute the same on random inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tf_evonorm.search.space import primitives
from tf_evonorm.search.space.graph import INITIAL, Graph, Node
from tf_evonorm.search.space.primitives import USUAL, Protection

_SHAPES = (((4, 4, 4, 16), 4), ((3, 5, 2, 8), 2), ((6, 3, 3, 6), 3), ((2, 1, 4, 12), 4))  # of x, and groups
_SCALES = (1.0, 0.01, 30.0, 1e3)
_TRIED, _PROVED = 8, 64  # random inputs while nodes are removed, and of the proof
_BATCHES = 3  # of which the moving statistics of inference are averages


class _Draw(NamedTuple):
    """Random inputs: x of several batches [batches, B, H, W, C], the vectors [C], the number of groups."""

    x: np.ndarray
    v0: np.ndarray
    v1: np.ndarray
    groups: int


def simplify(graph: Graph, protection: Protection = USUAL) -> Graph:
    """Returns a graph with fewer nodes that computes the same function.

    Dead and repeated nodes are removed. Then nodes, or single inputs of nodes, are replaced by earlier ones for as long
    as the output stays the same and the formula gets shorter: an addition of 0, a double negation, a maximum whose
    winner is always the same, a shift of what is centred afterwards. Nothing is rewritten with other operations. The
    result is compared with the graph on new random inputs by `same_function`; if they differ there, only dead and
    repeated nodes are removed.

    Args:
      graph: the layer.
      protection: constants of the primitives. Nodes that only these make necessary stay, such as log(exp(x)).

    Returns:
      A graph with at most as many nodes; `graph` itself is not changed.
    """
    least = found = graph.canonical()
    draws = list(_draws(_TRIED, 0))
    wanted = [_outputs(graph, draw, protection) for draw in draws]
    while (smaller := _smaller(found, draws, wanted, protection)) is not None:
        found = smaller
    return found if same_function(graph, found, protection) else least


def same_function(one: Graph, other: Graph, protection: Protection = USUAL, draws: int = _PROVED) -> bool:
    """Returns whether two graphs have the same outputs on random inputs, in training and in inference.

    Inputs have several shapes, scales and offsets; v0 and v1 are positive and negative. In inference, batch nodes use
    averages over earlier batches. Outputs are compared in float64 to nine digits; where one is not finite, the other
    must not be either.

    Args:
      one, other: the graphs.
      protection: constants of the primitives.
      draws: number of random inputs.

    Returns:
      False also if no output of `one` is finite, since nothing can be compared then.
    """
    finite = False
    for draw in _draws(draws, 1):
        wanted = _outputs(one, draw, protection)
        if not _alike(wanted, _outputs(other, draw, protection)):
            return False
        finite = finite or bool(np.isfinite(wanted).any())
    return finite


def _smaller(
    graph: Graph, draws: Sequence[_Draw], wanted: Sequence[np.ndarray], protection: Protection
) -> Graph | None:
    """Returns a graph with fewer nodes or a shorter formula and the same outputs; None if there is none."""
    size = _size(graph)
    for other in _variants(graph):
        if _size(other) < size and all(
            _alike(want, _outputs(other, draw, protection)) for draw, want in zip(draws, wanted)
        ):
            return other
    return None


def _size(graph: Graph) -> tuple[int, int]:
    return len(graph.nodes), len(graph.formula())


def _variants(graph: Graph) -> Iterator[Graph]:
    """Yields graphs with an earlier node in place of one, the last nodes first; then of one input of a node."""
    count = len(INITIAL) + len(graph.nodes)
    for number in reversed(range(len(INITIAL), count)):
        for earlier in range(number):
            nodes = [Node(name, tuple(earlier if i == number else i for i in inputs)) for name, inputs in graph.nodes]
            if number == count - 1:  # the output
                nodes = nodes[: max(earlier + 1 - len(INITIAL), 0)]
            if nodes:
                yield Graph(tuple(nodes)).canonical()
    for number, (name, inputs) in enumerate(graph.nodes):
        for position, read in enumerate(inputs):
            for earlier in range(read):
                node = Node(name, (*inputs[:position], earlier, *inputs[position + 1 :]))
                yield Graph((*graph.nodes[:number], node, *graph.nodes[number + 1 :])).canonical()


def _draws(count: int, seed: int) -> Iterator[_Draw]:
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        shape, groups = _SHAPES[number % len(_SHAPES)]
        scale = _SCALES[number // len(_SHAPES) % len(_SCALES)]
        x = scale * (rng.normal(size=(_BATCHES, *shape)) + rng.normal(size=shape[-1]) * (number % 2))
        yield _Draw(x, rng.normal(size=shape[-1]), rng.normal(size=shape[-1]), groups)


def _outputs(graph: Graph, draw: _Draw, protection: Protection) -> np.ndarray:
    """Returns the outputs of training and of inference [batches + 1, B, H, W, C]."""
    trained = [_values(graph, x, draw, protection, {}) for x in draw.x]
    moving = {}
    for number in graph.batch_nodes:
        statistics = np.stack([values[number] for values in trained])
        if graph.operation(number) == "mean_batch":
            moving[number] = statistics.mean(0)
        else:  # what is averaged stands inside the root
            with np.errstate(all="ignore"):
                moving[number] = np.sqrt(np.square(statistics).mean(0))
    values = [*trained, _values(graph, draw.x[0], draw, protection, moving)]
    return np.stack([np.broadcast_to(value[graph.live[-1]], draw.x[0].shape) for value in values])


def _values(graph: Graph, x: np.ndarray, draw: _Draw, protection: Protection, moving: dict) -> dict[int, np.ndarray]:
    """Returns the value of each live node; `moving` holds those of batch nodes in inference."""
    vector = [1] * (x.ndim - 1) + [-1]
    values = {0: x, 1: np.zeros([1] * x.ndim), 2: draw.v0.reshape(vector), 3: draw.v1.reshape(vector)}
    for number, operation, inputs in graph.steps:
        if number in moving:
            values[number] = moving[number]
        else:
            values[number] = primitives.apply(operation, [values[i] for i in inputs], protection, draw.groups)
    return values


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    finite = np.isfinite(one)
    if not (finite == np.isfinite(other)).all():
        return False
    one, other = one[finite], other[finite]
    with np.errstate(all="ignore"):
        return bool((np.abs(one - other) <= 1e-9 * np.maximum(np.abs(one), np.abs(other)) + 1e-12).all())
