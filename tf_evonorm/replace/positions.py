"""Finds every normalization of a Keras model with its activation, or says by name why one cannot be replaced."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any, NamedTuple

import tensorflow as tf

from tf_evonorm.layers.norm_act import NormAct
from tf_evonorm.mistakes import Mistake
from tf_evonorm.replace import kinds
from tf_evonorm.replace.graph import Graph, nested_graph


class Position(NamedTuple):
    """One normalization of a model and what it becomes; names of nested models are joined by a slash."""

    normalization: str
    activations: tuple[str, ...]  # absorbed by the new layer; empty where the normalization stands alone
    apply_act: bool


class Plan:
    """What happens to the layers of a model and of the models nested in it, by the identity of the layers.

    Attributes:
        positions: `Position` of each normalization that is replaced, in the order of layers.
        absorbed: ids of the layers that are, or are part of, an absorbed activation.
        shared: ids of those absorbed activations that act elsewhere too.
        functions: names of the absorbed activations, one per position.
    """

    def __init__(self, model: tf.keras.Model, keep: Collection[str] = ()):
        if not isinstance(model, tf.keras.layers.Layer):
            raise TypeError(f"a Keras model comes first. Received {model!r}.")
        self.positions: dict[int, Position] = {}
        self.absorbed: set[int] = set()
        self.shared: set[int] = set()
        self.functions: list[str] = []
        self._names: dict[int, list[str]] = {}  # every name of a normalization, with and without its path
        self._graphs: dict[int, Graph] = {}
        self._unclear: dict[str, str] = {}
        self._read(model, "")
        kept = self._kept((keep,) if isinstance(keep, str) else tuple(keep))
        for graph in self._graphs.values():
            for layer in graph.layers.values():
                if id(layer) in self._names and id(layer) not in kept:
                    self._add(graph, layer)
        if self._unclear:
            first, *others = self._unclear.values()
            more = f" {len(others)} others are alike: keep={tuple(self._unclear)!r} keeps them all." if others else ""
            raise Mistake(f"{first}{more}")
        self.positions = {key: self.positions[key] for key in self._names if key in self.positions}
        self._find_shared()

    def _read(self, model, path):
        """Collects the graphs and normalizations of a model and its nested models, each once."""
        if id(model) in self._graphs:
            first = self._graphs[id(model)].path
            for names in self._names.values():
                names += [path + name[len(first) :] for name in names if name.startswith(first)]
            return
        graph = self._graphs[id(model)] = Graph(model, path)
        for layer in graph.layers.values():
            nested = nested_graph(layer)
            if nested is not None:
                inner = "" if nested is layer else f"{nested.name}/"
                self._read(nested, f"{path}{layer.name}/{inner}")
                self._graphs[id(nested)].uses.append((graph, layer.name))
            elif isinstance(layer, NormAct) or kinds.is_normalization(layer):
                self._names.setdefault(id(layer), []).extend((path + layer.name, layer.name))
            else:
                _refuse_hidden(layer, path)

    def _kept(self, keep):
        """Ids of the normalizations named in `keep`."""
        every = {name for names in self._names.values() for name in names}
        for name in keep:
            if name not in every:
                close = difflib.get_close_matches(str(name), sorted(every), 3)
                way_out = f"Did you mean {' or '.join(map(repr, close))}?" if close else "norm_act_places lists them."
                raise Mistake(f"keep must hold names of normalizations in the model. Received {name!r}. {way_out}")
        return {key for key, names in self._names.items() if set(names) & set(keep)}

    def _add(self, graph, layer):
        """Adds one normalization as one graph reads it; what is wrong with it goes into `unclear`."""
        name = graph.path + layer.name
        if isinstance(layer, NormAct):
            self.positions.setdefault(id(layer), Position(name, (), layer.apply_act))
            return
        try:
            refuse_options(layer, name)
            channels_first(layer, name)
            activations = graph.activations_of(layer.name)
            seen = self.positions.get(id(layer))
            if seen and seen.apply_act != bool(activations):
                raise Mistake(
                    f"a shared normalization must have an activation everywhere or nowhere. Received {name}, also "
                    f"used as {seen.normalization}. Give each use its own layer, or pass keep=({name!r},)."
                )
        except ValueError as error:
            self._unclear[name] = str(error)
            return
        self.positions.setdefault(id(layer), Position(name, activations, bool(activations)))
        self.absorbed |= {id(graph.layers[activation]) for activation in activations}
        if activations and not seen:
            layers = [graph.layers[activation] for activation in activations]
            names = [kinds.activation_name(entry) or kinds.function_name(entry) for entry in layers]
            gated = len(activations) > 1 and kinds.is_product(layers[-1])
            self.functions.append(f"x * {names[-2]}" if gated else names[0])

    def _find_shared(self):
        """Finds the absorbed activations that also read what no replaced normalization is behind."""
        for graph in self._graphs.values():
            for name, layer in graph.layers.items():
                sources = {id(graph.layers[source]) for source in graph.sources[name]}
                if id(layer) in self.absorbed and sources - set(self.positions) - self.absorbed:
                    self.shared.add(id(layer))


def norm_act_places(model: tf.keras.Model, keep: Collection[str] = ()) -> list[Position]:
    """Finds what `replace_norm_act` would replace, in the model's order of layers.

    Args:
        model: functional or `Sequential` Keras model.
        keep: names of normalizations to leave out, as `replace_norm_act` takes them.

    Returns:
        One `Position` for each normalization; one that is shared by several nested models is listed once.

    Raises:
        TypeError, Mistake: as `replace_norm_act`.
    """
    return list(Plan(model, keep).positions.values())


def refuse_options(layer: tf.keras.layers.Layer, name: str) -> None:
    """Raises a Mistake for a normalization with options that no layer of this package has."""
    for option in ("renorm", "virtual_batch_size", "adjustment"):
        value = getattr(layer, option, None)
        if value:
            raise Mistake(
                f"a normalization must use plain statistics of its batch or group. Received {name} with "
                f"{option}={value!r}. Build the model without it, or pass keep=({name!r},)."
            )


def channels_first(layer: tf.keras.layers.Layer, name: str) -> bool:
    """Whether the channels of a normalization come right after the batch.

    Raises:
        Mistake: they are neither there nor last.
    """
    axis: Any = getattr(layer, "axis", None)
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    rank = len(kinds.first_input(layer).shape) if layer._inbound_nodes else None
    if len(axes) == 1 and isinstance(axes[0], int):
        if axes[0] == -1 or (rank and axes[0] % rank == rank - 1):
            return False
        if axes[0] == 1 or (rank and axes[0] % rank == 1):
            return True
    raise Mistake(
        f"a normalization must have its channels last or right after the batch, as its `axis` says. Received {name} "
        f"({type(layer).__name__}) with axis={axis} and inputs of rank {rank}. Permute its input, or pass "
        f"keep=({name!r},)."
    )


def _refuse_hidden(layer, path):
    """Refuses a layer, other than a model with a graph, that has a normalization inside."""
    for inner in layer._flatten_layers(include_self=False) if hasattr(layer, "_flatten_layers") else ():
        if kinds.is_normalization(inner) or isinstance(inner, NormAct):
            raise Mistake(
                f"a normalization must be a layer of the model itself. Received {path}{layer.name} "
                f"({type(layer).__name__}) with {inner.name} inside. Write that block as functional layers."
            )
