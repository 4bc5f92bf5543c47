"""A layer as an immutable graph of primitives: sampled, mutated, read from text and JSON, printed as a formula."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import numpy as np

from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.space import primitives
from tf_evonorm.search.space.primitives import ARITY, COMMUTATIVE, USUAL, Protection

INITIAL = ("x", "0", "v0", "v1")  # the input, zeros, and two learned vectors that start as 0 and 1
LARGEST = 100  # nodes of a graph
FORMAT = "evonorm-graph-1"
_LONG = 120  # characters above which a repeated part of a formula gets a name of its own


class Node(NamedTuple):
    """An operation and the numbers of the nodes that it reads; 0 to 3 are the initial nodes."""

    operation: str
    inputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Space:
    """The space of graphs.

    Attributes:
      nodes: number of intermediate nodes.
      by, without: as in `primitives.draw`. The paper's S series has dead batch nodes, so its space included them.
    """

    nodes: int = 10
    by: str = "families"
    without: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Graph:
    """A layer: intermediate nodes in topological order; node k has the number 4 + k, and the last one is the output.

    Attributes:
      nodes: the intermediate nodes.

    Raises:
      Mistake: for an unknown operation, a wrong number of inputs, or an input that is not an earlier node.
    """

    nodes: tuple[Node, ...]

    def __post_init__(self):
        object.__setattr__(self, "nodes", tuple(Node(operation, tuple(inputs)) for operation, inputs in self.nodes))
        if not 1 <= len(self.nodes) <= LARGEST:
            raise Mistake(f"a graph must have 1 to {LARGEST} intermediate nodes. Received {len(self.nodes)}.")
        for number, (operation, inputs) in enumerate(self.nodes, len(INITIAL)):
            if not isinstance(operation, str) or operation not in ARITY:
                raise Mistake(
                    f"an operation is one of {', '.join(ARITY)}. Received {str(operation)[:40]!r} in node {number}."
                )
            if len(inputs) != ARITY[operation] or not all(type(i) is int and 0 <= i < number for i in inputs):
                raise Mistake(
                    f"node {number} ({operation}) reads {ARITY[operation]} nodes before it, 0 to {number - 1}. "
                    f"Received {str(inputs)[:40]}."
                )

    def __str__(self):
        return " ".join(f"{node.operation}({','.join(map(str, node.inputs))})" for node in self.nodes)

    @functools.cached_property
    def live(self) -> tuple[int, ...]:
        """Ascending numbers of the nodes, initial ones included, from which a path leads to the output."""
        found, waiting = set(), [len(INITIAL) + len(self.nodes) - 1]
        while waiting:
            number = waiting.pop()
            if number not in found:
                found.add(number)
                waiting += self.inputs(number)
        return tuple(sorted(found))

    def inputs(self, number: int) -> tuple[int, ...]:
        """Returns the numbers of the nodes that a node reads; an empty tuple for initial nodes."""
        return () if number < len(INITIAL) else self.nodes[number - len(INITIAL)].inputs

    def operation(self, number: int) -> str:
        """Returns the operation of an intermediate node."""
        return self.nodes[number - len(INITIAL)].operation

    @property
    def steps(self) -> list[tuple[int, str, tuple[int, ...]]]:
        """(number, operation, inputs) of the live intermediate nodes, in topological order."""
        return [(n, self.operation(n), self.inputs(n)) for n in self.live if n >= len(INITIAL)]

    @property
    def batch_nodes(self) -> tuple[int, ...]:
        """Numbers of the live nodes that aggregate over the batch."""
        return tuple(number for number, operation, _ in self.steps if operation.endswith("_batch"))

    def pruned(self) -> Graph:
        """Returns the same function without dead nodes."""
        number_of = {number: number for number in range(len(INITIAL))}
        nodes: list[Node] = []
        for number, operation, inputs in self.steps:
            number_of[number] = len(INITIAL) + len(nodes)
            nodes.append(Node(operation, tuple(number_of[i] for i in inputs)))
        return Graph(tuple(nodes))

    def canonical(self) -> Graph:
        """Returns one form for all graphs that differ only in dead or repeated nodes, node order or commuted inputs."""
        names = {number: str(number) for number in range(len(INITIAL))}
        ordered = {}
        for number, operation, inputs in self.steps:
            read = sorted(inputs, key=names.__getitem__) if operation in COMMUTATIVE else inputs
            ordered[number] = Node(operation, tuple(read))
            words = " ".join([operation, *(names[i] for i in read)])
            names[number] = hashlib.sha256(words.encode()).hexdigest()
        number_of = {name: number for number, name in enumerate(names.values()) if number < len(INITIAL)}
        nodes = []

        def visit(number: int) -> None:
            if names[number] not in number_of:
                node = ordered[number]
                for i in node.inputs:
                    visit(i)
                nodes.append(Node(node.operation, tuple(number_of[names[i]] for i in node.inputs)))
                number_of[names[number]] = len(INITIAL) + len(nodes) - 1

        visit(self.live[-1])
        return Graph(tuple(nodes))

    def formula(self) -> str:
        """Returns the layer before its affine transform as text."""
        return self._printed(INITIAL, primitives.text, "{} = {}", "; where ")

    def latex(self) -> str:
        """Returns the layer before its affine transform as LaTeX, without dollar signs."""
        return self._printed(("x", "0", "v_0", "v_1"), primitives.latex, "{} = {}", r";\ \mathrm{where}\ ")

    def _printed(self, initial: Sequence[str], printed: Callable, definition: str, where: str) -> str:
        texts = dict(enumerate(initial))
        readers = [i for _, _, inputs in self.steps for i in inputs]
        definitions = []
        for number, operation, inputs in self.steps:
            line = printed(operation, [texts[i] for i in inputs])
            if len(line) > _LONG and readers.count(number) > 1:
                definitions.append(definition.format(f"t_{{{number}}}" if "\\" in where else f"t{number}", line))
                line = definitions[-1].split(" = ")[0]
            texts[number] = line
        line = texts[self.live[-1]]
        if line.startswith("(") and line.endswith(")") and printed is primitives.text and _encloses(line):
            line = line[1:-1]
        return line + (where + ", ".join(definitions) if definitions else "")

    def to_json(self) -> str:
        """Returns JSON that `Graph.read` accepts."""
        return json.dumps({"format": FORMAT, "nodes": [[node.operation, list(node.inputs)] for node in self.nodes]})

    @classmethod
    def read(cls, written: Graph | str | bytes | dict) -> Graph:
        """Reads a graph from outside; nothing in it is executed.

        Args:
          written: one-line text as from `str(graph)`, JSON as from `to_json`, or the object that such JSON holds.

        Raises:
          Mistake: for anything else.
        """
        if isinstance(written, Graph):
            return written
        if isinstance(written, (str, bytes)):
            if len(written) > 100_000:
                raise Mistake(f"a graph must have at most 100000 characters. Received {len(written)}.")
            try:
                written = written.decode() if isinstance(written, bytes) else written
                if not written.lstrip().startswith(("{", "[", '"')):
                    return cls(tuple(_node(word) for word in written.split()))
                written = json.loads(written)
            except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
                raise Mistake(
                    f"a graph must be text or JSON. Received {str(error)[:80]}. Write it with to_json()."
                ) from error
        tree: Any = written
        if not (isinstance(tree, dict) and tree.get("format") == FORMAT and isinstance(tree.get("nodes"), list)):
            raise Mistake(
                f'a graph in JSON is {{"format": "{FORMAT}", "nodes": [...]}}. Received {str(tree)[:80]}. '
                "Write it with to_json()."
            )
        for node in tree["nodes"]:
            if not (isinstance(node, (list, tuple)) and len(node) == 2 and isinstance(node[1], (list, tuple))):
                raise Mistake(f'a node in JSON is like ["add", [0, 1]]. Received {str(node)[:80]}.')
        return cls(tuple(Node(operation, tuple(inputs)) for operation, inputs in tree["nodes"]))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Graph:
        """Reads a file that holds JSON or one-line text; see `read`."""
        with open(os.fspath(path), "rb") as file:
            return cls.read(file.read(100_001))


def sample(rng: np.random.Generator, space: Space = Space()) -> Graph:
    """Draws a random graph: each node gets an operation of `space` and inputs among all earlier nodes, with repetition.

    Source: EvoNorm paper, section 3, which does not say whether a node may read another one twice.
    """
    return Graph(tuple(_drawn(len(INITIAL) + k, rng, space) for k in range(space.nodes)))


def mutate(graph: Graph, rng: np.random.Generator, space: Space = Space()) -> Graph:
    """Draws one intermediate node and gives it a new operation and new inputs.

    Source: EvoNorm paper, section 4.
    """
    k = int(rng.integers(len(graph.nodes)))
    return Graph((*graph.nodes[:k], _drawn(len(INITIAL) + k, rng, space), *graph.nodes[k + 1 :]))


def evaluate(
    graph: Graph, x: np.ndarray, v0: np.ndarray, v1: np.ndarray, protection: Protection = USUAL, groups: int = 1
) -> np.ndarray:
    """Evaluates a graph in NumPy, in training mode and without the affine transform.

    Args:
      graph: the layer.
      x: [B, ..., C] float.
      v0, v1: [C].
      protection, groups: as in `primitives.apply`.

    Returns:
      [B, ..., C] of x's dtype; may contain infinite values and NaN.
    """
    values = dict(enumerate((x, np.zeros([1] * x.ndim, x.dtype), np.asarray(v0, x.dtype), np.asarray(v1, x.dtype))))
    for number in (2, 3):
        values[number] = values[number].reshape([1] * (x.ndim - 1) + [-1])
    for number, operation, inputs in graph.steps:
        values[number] = primitives.apply(operation, [values[i] for i in inputs], protection, groups)
    return np.broadcast_to(values[graph.live[-1]], x.shape)


def _drawn(number: int, rng: np.random.Generator, space: Space) -> Node:
    """Draws the node with a given number."""
    operation = primitives.draw(rng, space.by, space.without)
    return Node(operation, tuple(int(rng.integers(number)) for _ in range(ARITY[operation])))


def _node(word: str) -> Node:
    """Parses a node such as add(0,1)."""
    operation, bracket, rest = word.partition("(")
    inputs = rest.rstrip(")").split(",")
    if not bracket or not rest.endswith(")") or not all(i.isascii() and i.isdigit() and len(i) < 6 for i in inputs):
        raise Mistake(f"a node is written like add(0,1). Received {word[:40]!r}.")
    return Node(operation, tuple(map(int, inputs)))


def _encloses(line: str) -> bool:
    """Returns whether the first bracket of a line is closed by its last one."""
    depth = 0
    for position, letter in enumerate(line):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return position == len(line) - 1
    return False


# The paper's layers and those that it compares them with. In bn_relu and gn_relu, v1 and v0 are the affine transform
# inside the ReLU.
BASELINES = {
    "b0": Graph.read("std_batch(0) mul(3,0) std_instance(0) add(5,6) max(4,7) div(0,8)"),
    "b1": Graph.read("std_batch(0) exp(1) add(0,5) rms_instance(0) mul(6,7) max(4,8) div(0,9)"),
    "b2": Graph.read("std_batch(0) rms_instance(0) neg(0) add(5,6) max(4,7) div(0,8)"),
    "s0": Graph.read("mul(3,0) sigmoid(4) mul(0,5) std_group(0) div(6,7)"),
    "s1": Graph.read("sigmoid(0) mul(0,4) std_group(0) div(5,6)"),
    "s2": Graph.read("sigmoid(0) mul(0,4) rms_group(0) div(5,6)"),
    "bn_relu": Graph.read("mean_batch(0) neg(4) add(0,5) std_batch(0) div(6,7) mul(8,3) add(9,2) max(10,1)"),
    "gn_relu": Graph.read("mean_group(0) neg(4) add(0,5) std_group(0) div(6,7) mul(8,3) add(9,2) max(10,1)"),
    "frn": Graph.read("rms_instance(0) div(0,4)"),
}
