"""The graph of a Keras model: which layer reads which, and what follows a normalization."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tf_evonorm.keras_generation import KERAS_2
from tf_evonorm.mistakes import Mistake
from tf_evonorm.replace import kinds


def is_graph(layer: Any) -> bool:
    """Whether a layer is a model whose layers and links can be read: Sequential or functional."""
    return isinstance(layer, tf.keras.Sequential) or (
        isinstance(layer, tf.keras.Model) and any(entry.__name__ == "Functional" for entry in type(layer).__mro__)
    )


def nested_graph(layer: Any) -> Any:
    """The model that a layer is or that `TimeDistributed` applies, or None."""
    if type(layer) is tf.keras.layers.TimeDistributed:
        layer = layer.layer
    return layer if is_graph(layer) else None


class Graph:
    """Who reads whom inside one model, by layer names; None stands for the model's own output.

    Args:
        model: functional or `Sequential` model.
        path: names of the models around it, each followed by a slash.

    Raises:
        Mistake: the model has no graph, or its class does more than build one.
    """

    def __init__(self, model: tf.keras.Model, path: str = ""):
        _refuse_own_model(model, path)
        self.path = path
        self.uses: list[tuple[Graph, str]] = []  # where other models read this one: their graph, its layer's name there
        self.layers = {layer.name: layer for layer in getattr(model, "operations", model.layers)}
        self.readers: dict[str, list] = {name: [] for name in self.layers}
        self.sources: dict[str, list] = {name: [] for name in self.layers}
        for source, reader in _links(model):
            self.readers[source].append(reader)
            if reader is not None:
                self.sources[reader].append(source)

    def first(self) -> list[str]:
        """Names of the layers that read the model's input."""
        inputs = [name for name, layer in self.layers.items() if type(layer).__name__ == "InputLayer"]
        if not inputs:  # Sequential
            return list(self.layers)[:1]
        return [reader for name in inputs for reader in dict.fromkeys(self.readers[name]) if reader is not None]

    def activations_of(self, norm: str) -> tuple[str, ...]:
        """Names of the layers that are a normalization's activation: none, or everything that reads it.

        Raises:
            Mistake: the normalization feeds an activation and something else, two different activations, or
                something that may be, hide or lead to its activation.
        """
        readers = list(dict.fromkeys(self.readers[norm]))
        activations = [name for name in readers if name and kinds.activation_name(self.layers[name])]
        if not activations or len(activations) < len(readers):
            gated = self.gated_activation(norm)
            if gated:
                return gated
        if activations and len(activations) < len(readers):
            others = ["the model's output" if name is None else name for name in readers if name not in activations]
            raise Mistake(
                f"a normalization must feed its activation alone, or no activation. Received {self.path}{norm}, "
                f"read by {', '.join(activations)} and by {', '.join(others)}. Split it in the model, or pass "
                f"keep=({self.path + norm!r},)."
            )
        if len(activations) > 1 and not self._alike(activations):
            raise Mistake(
                f"a normalization must feed one activation. Received {self.path}{norm}, read by "
                f"{', '.join(activations)}, which differ. Give each its own normalization, or pass "
                f"keep=({self.path + norm!r},)."
            )
        if not activations:
            for reader in readers:
                self._refuse_activation_behind(norm, reader, [])
        return tuple(activations)

    def _alike(self, activations):
        """Whether several activations are one function."""
        layers = [self.layers[name] for name in activations]
        if any(kinds.has_parameters(layer) for layer in layers):
            return False
        configs = [{**layer.get_config(), "name": None} for layer in layers]
        calls = [
            [(n.call_args[1:], n.call_kwargs) for n in layer._inbound_nodes] for layer in layers if _is_call(layer)
        ]
        return all(type(layer) is type(layers[0]) for layer in layers) and all(
            str(entry) == str(listed[0]) for listed in (configs, calls) for entry in listed
        )

    def gated_activation(self, norm: str) -> tuple[str, ...]:
        """Names of the layers of an activation written as arithmetic, such as x * sigmoid(x) or x * relu6(x + 3) / 6.

        They compute each value from one value of the normalization and end in one product; only that is read elsewhere.
        """
        region = [norm]
        while True:
            readers = (name for member in region for name in self.readers[member])
            found = next((name for name in readers if name and name not in region and self._joins(name, region)), None)
            if found is None:
                return ()
            region.append(found)
            open_ends = [name for name in region if any(reader not in region for reader in self.readers[name])]
            if len(open_ends) == 1 and open_ends[0] != norm:
                layers = [self.layers[name] for name in region[1:]]
                product = len(set(self.sources[open_ends[0]])) > 1 and kinds.is_product(self.layers[open_ends[0]])
                scaled = product or (len(self.readers[norm]) > 1 and kinds.is_product(self.layers[open_ends[0]]))
                return tuple(region[1:]) if scaled and any(map(kinds.is_nonlinear, layers)) else ()

    def _joins(self, name, region):
        layer, shape = self.layers[name], tuple(kinds.first_output(self.layers[region[0]]).shape)
        return (
            set(self.sources[name]) <= set(region)
            and kinds.is_elementwise(layer)
            and tuple(kinds.first_output(layer).shape) == shape
        )

    def _refuse_activation_behind(self, norm, reader, between, graph=None, after=()):
        """Refuses what follows a lone normalization and may be, hide or lead to its activation.

        Args:
            norm: name of the normalization in this graph.
            reader: name of the layer in `graph` that is examined; None for the output.
            between: names of the layers passed so far.
            graph: the graph of a nested model, or None for this one.
            after: where to continue after the outputs of nested models, innermost last: pairs of graph and layer name.
        """
        graph = graph or self
        if reader is None:
            for outer, name in after[-1:] or graph.uses:
                for following in dict.fromkeys(outer.readers[name]):
                    self._refuse_activation_behind(norm, following, between, outer, after[:-1])
            return
        layer = graph.layers[reader]
        if kinds.activation_name(layer):
            raise Mistake(self._not_at_once(norm, reader, between, graph))
        nested = nested_graph(layer)
        if nested is not None:
            inner = Graph(nested, f"{graph.path}{reader}/")
            for first in inner.first():
                self._refuse_activation_behind(norm, first, [*between, reader], inner, (*after, (graph, reader)))
            return
        passes = kinds.passes(layer, len(set(graph.sources[reader])))
        if passes is None:
            raise Mistake(self._unknown(norm, reader, layer))
        if passes:
            for following in dict.fromkeys(graph.readers[reader]):
                self._refuse_activation_behind(norm, following, [*between, reader], graph, after)

    def _not_at_once(self, norm, reader, between, graph):
        name = self.path + norm
        if graph is not self and self.path.startswith(graph.path):
            return (
                f"a normalization and its activation must lie in one model. Received {name}, whose model is followed "
                f"by {', then by '.join([*between, reader])}. Put them into one model, or pass keep=({name!r},)."
            )
        if graph is not self:
            return (
                f"a normalization and its activation must lie in one model. Received {name}, read by the model "
                f"{between[0]}, which starts with {reader}. Put them into one model, or pass keep=({name!r},)."
            )
        return (
            f"an activation must follow its normalization at once. Received {name}, then "
            f"{', then '.join([*between, reader])}. Move the activation to the normalization, or pass keep=({name!r},)."
        )

    def _unknown(self, norm, reader, layer):
        name = self.path + norm
        way_out = f"Write it as a normalization followed by a Keras activation layer, or pass keep=({name!r},)."
        if type(layer).__name__ in ("Activation", "Softmax"):
            return (
                f"a function after a normalization must be a known activation: {', '.join(kinds.ACTIVATIONS)}. "
                f"Received {reader} after {name}. {way_out}"
            )
        return (
            f"a normalization must be followed by Keras layers. Received {name}, read by {reader} "
            f"({type(layer).__name__}), which may be its activation. {way_out}"
        )


def _refuse_own_model(model, path):
    if not is_graph(model):
        raise Mistake(
            f"a model must be functional or Sequential, of layers that have a config. Received {path}{model.name} "
            f"({type(model).__name__}). Build it as tf.keras.Model(inputs, outputs)."
        )
    if isinstance(model, tf.keras.Sequential):
        if model.layers and not getattr(model, "inputs", None):
            raise without_inputs(model, path)
        return
    functional = next(entry for entry in type(model).__mro__ if entry.__name__ == "Functional")
    constructor, usual = (inspect.getfullargspec(entry.__init__) for entry in (type(model), functional))
    if constructor.args[1:] == usual.args[1:] or (not KERAS_2 and constructor.varargs and constructor.varkw):
        return
    mro = type(model).__mro__
    classes = itertools.takewhile(lambda entry: not entry.__module__.startswith(("keras.", "tf_keras.")), mro)
    own = {name for entry in classes for name in vars(entry) if not name.startswith("_")}
    changed = sorted((own - {"get_config", "from_config"}) & set(dir(tf.keras.Model)))
    if changed:
        raise Mistake(
            "a functional model with a constructor of its own must only build its graph there. "
            f"Received {path}{model.name} ({type(model).__name__}), which defines {', '.join(changed)}. "
            "Pass tf.keras.Model(model.inputs, model.outputs)."
        )


def without_inputs(model: tf.keras.Model, path: str) -> Mistake:
    """The error for a `Sequential` whose input shape is not known."""
    return Mistake(
        f"a model must know its inputs. Received {path}{model.name}, a Sequential without one. "
        "Start it with tf.keras.Input(shape)."
    )


def _is_call(layer):
    return type(layer).__name__ == "TFOpLambda"


def _links(model: tf.keras.Model) -> Iterator[tuple[str, str | None]]:
    """Pairs of a layer's name and the name of one that reads it."""
    if isinstance(model, tf.keras.Sequential):
        names = [layer.name for layer in model.layers]
        yield from zip(names, [*names[1:], None])
        return
    for nodes in model._nodes_by_depth.values():
        for node in nodes:
            reader = _caller(node).name
            yield from ((_caller(parent).name, reader) for parent in node.parent_nodes)
    yield from ((output._keras_history[0].name, None) for output in tf.nest.flatten(model.outputs))


def _caller(node):
    return node.operation if hasattr(node, "operation") else node.layer
