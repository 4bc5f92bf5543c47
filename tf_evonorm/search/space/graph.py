"""A layer as a graph of primitives: immutable, drawn at random, mutated, read from text and JSON, printed as a formula."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from typing import Any, NamedTuple

import numpy as np

from tf_evonorm.search.space import primitives
from tf_evonorm.search.space.primitives import ARITY, COMMUTATIVE, USUAL, Protection

INITIAL = ("x", "0", "v0", "v1")  # the input, zeros, and two learned vectors that start as 0 and 1
LARGEST = 100  # nodes, of a graph from outside
FORMAT = "evonorm-graph-1"
_LONG = 120  # characters after which a part that is used twice gets a name of its own in a formula


class Node(NamedTuple):
    """An operation and the numbers of the nodes that it reads; 0 to 3 are the initial ones."""

    operation: str
    inputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Space:
    """What is drawn from.

    Attributes:
      nodes: number of intermediate nodes.
      by, without: see `primitives.draw`. The S series of the paper has dead batch nodes, so it was not searched without them.
    """

    nodes: int = 10
    by: str = "families"
    without: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Graph:
    """Intermediate nodes in an order in which each reads earlier ones only; node k has the number 4 + k, the last is the output.

    Raises:
      ValueError: an unknown operation, a wrong number of inputs, or an input that does not come before.
    """

    nodes: tuple[Node, ...]

    def __post_init__(self):
        object.__setattr__(self, "nodes", tuple(Node(operation, tuple(inputs)) for operation, inputs in self.nodes))
        if not 1 <= len(self.nodes) <= LARGEST:
            raise ValueError(f"a graph has 1 to {LARGEST} intermediate nodes. Received {len(self.nodes)}.")
        for number, (operation, inputs) in enumerate(self.nodes, len(INITIAL)):
            if not isinstance(operation, str) or operation not in ARITY:
                raise ValueError(
                    f"an operation is one of {', '.join(ARITY)}. Received {str(operation)[:40]!r} in node {number}."
                )
            if len(inputs) != ARITY[operation] or not all(type(i) is int and 0 <= i < number for i in inputs):
                raise ValueError(
                    f"node {number} ({operation}) reads {ARITY[operation]} nodes before it, 0 to {number - 1}. "
                    f"Received {str(inputs)[:40]}."
                )

    def __str__(self):
        return " ".join(f"{node.operation}({','.join(map(str, node.inputs))})" for node in self.nodes)

    @functools.cached_property
    def live(self) -> tuple[int, ...]:
        """Numbers of the nodes, initial ones too, that the output depends on by structure, in their order."""
        found, waiting = set(), [len(INITIAL) + len(self.nodes) - 1]
        while waiting:
            number = waiting.pop()
            if number not in found:
                found.add(number)
                waiting += self.inputs(number)
        return tuple(sorted(found))

    def inputs(self, number: int) -> tuple[int, ...]:
        """Numbers of the nodes that a node reads; nothing for initial nodes."""
        return () if number < len(INITIAL) else self.nodes[number - len(INITIAL)].inputs

    def operation(self, number: int) -> str:
        """Operation of an intermediate node."""
        return self.nodes[number - len(INITIAL)].operation

    @property
    def steps(self) -> list[tuple[int, str, tuple[int, ...]]]:
        """(number, operation, inputs) of the live intermediate nodes, in their order."""
        return [(n, self.operation(n), self.inputs(n)) for n in self.live if n >= len(INITIAL)]

    @property
    def batch_nodes(self) -> tuple[int, ...]:
        """Numbers of the live nodes that aggregate over the batch."""
        return tuple(number for number, operation, _ in self.steps if operation.endswith("_batch"))

    def pruned(self) -> Graph:
        """The same function without dead nodes."""
        number_of = {number: number for number in range(len(INITIAL))}
        nodes: list[Node] = []
        for number, operation, inputs in self.steps:
            number_of[number] = len(INITIAL) + len(nodes)
            nodes.append(Node(operation, tuple(number_of[i] for i in inputs)))
        return Graph(tuple(nodes))

    def canonical(self) -> Graph:
        """One form for all graphs that differ in dead nodes, the order of nodes, repeated parts, or a + b against b + a."""
        names = {number: str(number) for number in range(len(INITIAL))}
        ordered = {}
        for number, operation, inputs in self.steps:
            read = sorted(inputs, key=names.__getitem__) if operation in COMMUTATIVE else inputs
            ordered[number] = Node(operation, tuple(read))
            words = " ".join([operation, *(names[i] for i in read)])
            names[number] = hashlib.sha256(words.encode()).hexdigest()
        number_of = {name: number for number, name in enumerate(names.values()) if number < len(INITIAL)}
        nodes = []

        def visit(number):
            if names[number] not in number_of:
                node = ordered[number]
                for i in node.inputs:
                    visit(i)
                nodes.append(Node(node.operation, tuple(number_of[names[i]] for i in node.inputs)))
                number_of[names[number]] = len(INITIAL) + len(nodes) - 1

        visit(self.live[-1])
        return Graph(tuple(nodes))

    def formula(self) -> str:
        """The layer before its affine, as text."""
        return self._printed(INITIAL, primitives.text, "{} = {}", "; where ")

    def latex(self) -> str:
        """The layer before its affine, as LaTeX without dollars."""
        return self._printed(("x", "0", "v_0", "v_1"), primitives.latex, "{} = {}", r";\ \mathrm{where}\ ")

    def _printed(self, initial, printed, definition, where):
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
        """JSON that `Graph.read` takes."""
        return json.dumps({"format": FORMAT, "nodes": [[node.operation, list(node.inputs)] for node in self.nodes]})

    @classmethod
    def read(cls, written: Graph | str | bytes | dict) -> Graph:
        """Makes a graph of what came from outside.

        Args:
          written: one-line text as `str(graph)`, JSON as `to_json`, or the object that such JSON holds. Nothing in it is run.

        Raises:
          ValueError: it is no such text, JSON or object.
        """
        if isinstance(written, Graph):
            return written
        if isinstance(written, (str, bytes)):
            if len(written) > 100_000:
                raise ValueError(f"a graph is at most 100000 characters. Received {len(written)}.")
            try:
                written = written.decode() if isinstance(written, bytes) else written
                if not written.lstrip().startswith(("{", "[", '"')):
                    return cls(tuple(_node(word) for word in written.split()))
                written = json.loads(written)
            except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
                raise ValueError(
                    f"a graph is text or JSON. Received {str(error)[:80]}. Write it with to_json()."
                ) from error
        tree: Any = written
        known = isinstance(tree, dict) and tree.get("format") == FORMAT and isinstance(tree.get("nodes"), list)
        if not known:
            raise ValueError(
                f'a graph in JSON is {{"format": "{FORMAT}", "nodes": [...]}}. Received {str(tree)[:80]}. Write it with to_json().'
            )
        for node in tree["nodes"]:
            if not (isinstance(node, (list, tuple)) and len(node) == 2 and isinstance(node[1], (list, tuple))):
                raise ValueError(f'a node in JSON is ["add", [0, 1]]. Received {str(node)[:80]}.')
        return cls(tuple(Node(operation, tuple(inputs)) for operation, inputs in tree["nodes"]))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Graph:
        """Reads a file with JSON or one-line text; see `read`."""
        with open(os.fspath(path), "rb") as file:
            return cls.read(file.read(100_001))


def sample(rng: np.random.Generator, space: Space = Space()) -> Graph:
    """Draws a random graph: each node an operation of `space`, and its inputs among all earlier nodes, repetitions allowed.

    Source: EvoNorm paper, section 3. Whether one node may be read twice is not said.
    """
    return Graph(tuple(_drawn(len(INITIAL) + k, rng, space) for k in range(space.nodes)))


def mutate(graph: Graph, rng: np.random.Generator, space: Space = Space()) -> Graph:
    """Draws one intermediate node, and gives it a new operation and new inputs.

    Source: EvoNorm paper, section 4.
    """
    k = int(rng.integers(len(graph.nodes)))
    return Graph((*graph.nodes[:k], _drawn(len(INITIAL) + k, rng, space), *graph.nodes[k + 1 :]))


def evaluate(
    graph: Graph, x: np.ndarray, v0: np.ndarray, v1: np.ndarray, protection: Protection = USUAL, groups: int = 1
) -> np.ndarray:
    """Runs a graph in NumPy, in training mode and without affine.

    Args:
      graph: the layer.
      x: [B, ..., C] float.
      v0, v1: [C].
      protection, groups: see `primitives.apply`.

    Returns:
      [B, ..., C] of x's dtype; may hold infinite values and NaN.
    """
    values = dict(enumerate((x, np.zeros([1] * x.ndim, x.dtype), np.asarray(v0, x.dtype), np.asarray(v1, x.dtype))))
    for number in (2, 3):
        values[number] = values[number].reshape([1] * (x.ndim - 1) + [-1])
    for number, operation, inputs in graph.steps:
        values[number] = primitives.apply(operation, [values[i] for i in inputs], protection, groups)
    return np.broadcast_to(values[graph.live[-1]], x.shape)


def _drawn(number, rng, space):
    operation = primitives.draw(rng, space.by, space.without)
    return Node(operation, tuple(int(rng.integers(number)) for _ in range(ARITY[operation])))


def _node(word):
    operation, bracket, rest = word.partition("(")
    inputs = rest.rstrip(")").split(",")
    if not bracket or not rest.endswith(")") or not all(i.isascii() and i.isdigit() and len(i) < 6 for i in inputs):
        raise ValueError(f"a node is written as add(0,1). Received {word[:40]!r}.")
    return operation, tuple(map(int, inputs))


def _encloses(line):
    """Whether the first bracket of a line is closed by its last."""
    depth = 0
    for place, letter in enumerate(line):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place == len(line) - 1
    return False


# The layers of the paper and those that they are compared with. In bn_relu and gn_relu v1 and v0 are the affine inside the ReLU.
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
