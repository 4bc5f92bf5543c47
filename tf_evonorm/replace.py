"""Takes a Keras model as it is and puts another normalization with activation in every place of its own ones."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection
from typing import NamedTuple

import tensorflow as tf

from tf_evonorm.layers.norm_act import NormAct

NORMALIZATIONS = ("BatchNormalization", "SyncBatchNormalization", "GroupNormalization", "InstanceNormalization")
ACTIVATIONS = ("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "swish", "silu", "mish", "softplus", "tanh")
ACTIVATION_LAYERS = ("ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU")
FUNCTIONS = ("TFOpLambda", "SlicingOpLambda", "Lambda")
# Layers that hand a normalization on to what follows: an activation behind one of them would still be its own.
PASSING = ("Dropout", "SpatialDropout2D", "ZeroPadding2D", "Cropping2D", "Reshape", "Permute", "Concatenate", "Flatten")


class Place(NamedTuple):
    """One normalization of a model and what it becomes; names of nested models are joined by a slash."""

    normalization: str
    activations: tuple[str, ...]  # taken over by the new layer; empty where the normalization stands alone
    apply_act: bool


@tf.keras.utils.register_keras_serializable(package="tf_evonorm")
class PassThrough(tf.keras.layers.Layer):
    """Stands where an activation stood that the layer before it has taken over: returns its input, of any shape."""

    supports_masking = True

    def call(self, inputs, *args, **kwargs):
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape


def replace_norm_act(
    model: tf.keras.Model, norm_act: Callable[..., tf.keras.layers.Layer], keep: Collection[str] = ()
) -> tf.keras.Model:
    """Copies a model with every normalization replaced, together with the activation that follows it.

    A normalization followed by an activation becomes `norm_act(apply_act=True)`; one that stands alone, as at the end of
    a residual branch, becomes `norm_act(apply_act=False)`, which for EvoNorm is the affine form. All other layers keep
    their names, settings and weights. New layers carry the name of the normalization and its `gamma_initializer`; where
    an activation was, a layer of its name passes its input through, so `get_layer(name).output` still finds the
    activated tensor. Compile the result anew. How many places were replaced is logged; `norm_act_places` lists them.

    Args:
        model: functional or `Sequential` Keras model with BatchNormalization or GroupNormalization, nested ones included:
            those of `tf.keras.applications`, a backbone of this package, one's own. It is not changed. Where an
            activation is spelled as arithmetic, as in MobileNetV3, the normalization before it must be kept.
        norm_act: callable returning a fresh layer, called as `norm_act(apply_act=..., gamma_initializer=..., name=...)`,
            with `axis=1` where the channels come first: `EvoNormB0`, `functools.partial(EvoNormS0, groups="auto")`.
        keep: names of normalizations that stay as they are, with their activations.

    Returns:
        A new model of the same inputs and outputs.

    Raises:
        TypeError: model is no Keras model, or norm_act no class or function that makes layers.
        ValueError: what cannot be understood, naming every such normalization: a model that is not functional, a layer that hides a
            normalization inside or cannot be copied, a normalization that feeds an activation and something else, an
            activation shared between normalizations and other layers, an unknown function after a normalization, a
            model in which no normalization has an activation.

    Source: EvoNorm's published code, where a layer without nonlinearity is the affine only. LayerNormalization, which
        normalizes each place by itself, and Normalization of inputs are left as they are. In a post-activation ResNet
        the affine form leaves sums of branches unnormalized; the authors use EvoNorm in ResNet v2 only.
    """
    if isinstance(norm_act, tf.keras.layers.Layer) or not callable(norm_act):
        raise TypeError(
            f"norm_act must be a class or function that makes a layer, such as EvoNormB0. Received {norm_act!r}."
        )
    places = norm_act_places(model, keep)
    if not any(place.apply_act for place in places):
        raise ValueError(
            f"a model must have a normalization followed by an activation. Received {model.name} with "
            f"{len(places)} normalizations, all alone. Put `norm_act` in by hand."
        )
    alone = sum(not place.apply_act for place in places)
    new = _replace(model, norm_act, {place.normalization: place for place in places}, "")
    logging.getLogger(__name__).info(
        "%s: replaced %d normalizations with their activations and %d that stood alone",
        model.name,
        len(places) - alone,
        alone,
    )
    return new


def norm_act_places(model: tf.keras.Model, keep: Collection[str] = ()) -> list[Place]:
    """Finds what `replace_norm_act` would replace, in the model's order of layers.

    Args:
        model: functional or `Sequential` Keras model.
        keep: names of normalizations to leave out.

    Raises:
        TypeError, ValueError: as `replace_norm_act`.
    """
    if not isinstance(model, tf.keras.layers.Layer):
        raise TypeError(f"a Keras model comes first. Received {model!r}.")
    unclear: dict = {}
    places = _places(model, frozenset(keep), "", unclear)
    if unclear:
        told, *others = unclear.values()
        names = tuple(unclear)
        more = f" {len(others)} others are alike: keep={names!r} keeps them all." if others else ""
        raise ValueError(f"{told}{more}")
    return places


def _places(model, keep, path, unclear):
    """The places of a model; what is wrong with a normalization goes into `unclear`, by its name."""
    graph = _Graph(model, path)
    places, replaced, activations = [], set(), set()
    for layer in model.layers:
        if _is_graph(layer):
            places += _places(layer, keep, f"{path}{layer.name}/", unclear)
        elif layer.name in keep:
            continue
        elif isinstance(layer, NormAct):
            places.append(Place(path + layer.name, (), layer.apply_act))
        elif _is_normalization(layer):
            try:
                own = graph.activations_of(layer.name)
            except ValueError as error:
                unclear[layer.name] = str(error)
                continue
            activations.update(own)
            replaced.add(layer.name)
            places.append(Place(path + layer.name, tuple(own), bool(own)))
        else:
            _refuse_hidden(layer, path)
    for activation in sorted(activations):
        graph.refuse_shared(activation, replaced)
    return places


class _Graph:
    """Who reads whom inside one model, by layer names; None stands for the model's own output."""

    def __init__(self, model, path=""):
        if not _is_graph(model):
            raise ValueError(
                f"a model must be functional or Sequential, of layers that have a config. Received {path}{model.name} "
                f"({type(model).__name__}). Build it as tf.keras.Model(inputs, outputs)."
            )
        self.layers = {layer.name: layer for layer in getattr(model, "operations", model.layers)}
        self.readers = {name: [] for name in self.layers}
        self.sources = {name: [] for name in self.layers}
        if isinstance(model, tf.keras.Sequential):
            names = list(self.layers)
            links = list(zip(names, [*names[1:], None]))
        else:
            config = model.get_config()
            links = [(source, None) for source in _references(config["output_layers"])]
            for entry in config["layers"]:
                links += [(source, entry["name"]) for source in _references(entry["inbound_nodes"])]
        for source, reader in links:
            self.readers[source].append(reader)
            if reader is not None:
                self.sources[reader].append(source)

    def activations_of(self, norm):
        """Names of the activations that read a normalization: none, or everything that reads it."""
        readers = list(dict.fromkeys(self.readers[norm]))
        activations = [reader for reader in readers if reader is not None and _is_activation(self.layers[reader])]
        others = [reader for reader in readers if reader not in activations]
        if activations and others:
            named = ", ".join("the model's output" if reader is None else reader for reader in others)
            raise ValueError(
                f"a normalization must feed its activation alone, or no activation. Received {norm}, read by "
                f"{', '.join(activations)} and by {named}. Split it in the model, or pass keep=({norm!r},)."
            )
        for reader in others:
            self._refuse_unknown(norm, reader)
        return activations

    def _refuse_unknown(self, norm, reader):
        """Refuses what reads a lone normalization and may be, hide or lead to its activation."""
        if reader is None:
            return
        layer, kind = self.layers[reader], type(self.layers[reader]).__name__
        way_out = f"Write it as a normalization followed by a Keras activation layer, or pass keep=({norm!r},)."
        if _is_graph(layer):
            first = _Graph(layer).first()
            if any(_is_activation(entry) for entry in first):
                raise ValueError(
                    f"a normalization and its activation must lie in one model. Received {norm}, read by the model "
                    f"{reader}, which starts with {first[0].name}. {way_out}"
                )
        elif kind == "Activation" and not _is_linear(layer):
            raise ValueError(
                f"a function after a normalization must be a known activation: {', '.join(ACTIVATIONS)}. "
                f"Received {reader} after {norm}. {way_out}"
            )
        elif kind in FUNCTIONS or not isinstance(layer, tf.keras.layers.Layer):
            if len(set(self.sources[reader])) < 2:  # a function of several tensors joins branches
                raise ValueError(
                    f"a normalization must be followed by Keras layers. Received {norm}, read by {reader} ({kind}), "
                    f"which may be its activation. {way_out}"
                )
        elif kind in PASSING or _is_linear(layer):
            for following in dict.fromkeys(self.readers[reader]):
                if following is not None and _is_activation(self.layers[following]):
                    raise ValueError(
                        f"an activation must follow its normalization at once. Received {norm}, then {reader}, then "
                        f"{following}. Swap the last two, or pass keep=({norm!r},)."
                    )
                self._refuse_unknown(norm, following)

    def first(self):
        """Layers that read the model's input."""
        inputs = [name for name, layer in self.layers.items() if type(layer).__name__ == "InputLayer"]
        if not inputs:  # Sequential
            return list(self.layers.values())[:1]
        return [self.layers[reader] for name in inputs for reader in self.readers[name] if reader is not None]

    def refuse_shared(self, activation, norms):
        """Refuses an activation that also acts where no replaced normalization is."""
        strangers = sorted(set(self.sources[activation]) - norms)
        if strangers:
            raise ValueError(
                f"an activation after a normalization must not act elsewhere too. Received {activation}, which also "
                f"reads {', '.join(strangers)}. Give each place its own activation layer."
            )


def _references(structure):
    """Yields the layer names of all tensors in a serialized structure of Keras 2 or Keras 3."""
    if isinstance(structure, dict):
        if "keras_history" in structure:
            yield structure["keras_history"][0]
        else:
            for entry in structure.values():
                yield from _references(entry)
    elif isinstance(structure, (list, tuple)):
        if len(structure) >= 3 and isinstance(structure[0], str) and all(type(n) is int for n in structure[1:3]):
            if structure[1] >= 0:  # -1 marks a constant
                yield structure[0]
            structure = structure[3:]
        for entry in structure:
            yield from _references(entry)


def _is_graph(layer):
    """Whether a layer is a model whose layers and links can be read."""
    if isinstance(layer, tf.keras.Sequential):
        return True
    if not isinstance(layer, tf.keras.Model):
        return False
    try:
        return "output_layers" in layer.get_config()
    except (NotImplementedError, TypeError, ValueError):
        return False


def _is_normalization(layer):
    return type(layer).__name__ in NORMALIZATIONS


def _is_activation(layer):
    kind = type(layer).__name__
    if kind == "Activation":
        return getattr(layer.activation, "__name__", "") in ACTIVATIONS
    if kind == "TFOpLambda":
        return layer.get_config()["function"].rpartition(".")[2] in ACTIVATIONS
    return kind in ACTIVATION_LAYERS


def _is_linear(layer):
    return type(layer).__name__ == "Activation" and getattr(layer.activation, "__name__", "") == "linear"


def _refuse_hidden(layer, path):
    """Refuses a layer, other than a model with a graph, that has a normalization inside."""
    for inner in layer._flatten_layers(include_self=False) if hasattr(layer, "_flatten_layers") else ():
        if _is_normalization(inner) or isinstance(inner, NormAct):
            raise ValueError(
                f"a normalization must be a layer of the model itself. Received {path}{layer.name} "
                f"({type(layer).__name__}) with {inner.name} inside. Write that block as functional layers."
            )


def _replace(model, norm_act, places, path):
    """Clones one model, and its nested models in the same way."""
    names = [path + layer.name for layer in model.layers]
    silenced = {activation for name in names if name in places for activation in places[name].activations}
    kept = []

    def clone(layer):
        if _is_graph(layer):
            return _replace(layer, norm_act, places, f"{path}{layer.name}/")
        if path + layer.name in places:
            return _new_layer(layer, norm_act, places[path + layer.name].apply_act)
        if layer.name in silenced:
            return PassThrough(name=layer.name)
        try:
            copy = type(layer).from_config(layer.get_config())
        except (NotImplementedError, TypeError, ValueError) as error:
            raise ValueError(
                f"a layer must be rebuilt by its config. Received {path}{layer.name} ({type(layer).__name__}): {error}. "
                "Give it get_config()."
            ) from error
        kept.append((layer, copy))
        return copy

    settings = {"clone_function": clone}
    if "call_function" in inspect.signature(tf.keras.models.clone_model).parameters and not isinstance(
        model, tf.keras.Sequential
    ):
        settings["call_function"] = _call_without_defaults
    try:
        new = tf.keras.models.clone_model(model, **settings)
    except ValueError as error:
        for layer in model.layers:
            if path + layer.name in places:
                _check_fits(layer, norm_act, path, error)
        raise
    if model.built and not new.built:
        raise ValueError(
            f"a model must know its inputs. Received {path}{model.name}, a Sequential without one. "
            "Start it with tf.keras.Input(shape)."
        )
    for layer, copy in kept:
        if layer.weights:
            copy.set_weights(layer.get_weights())
            if hasattr(copy, "finalize_state"):  # preprocessing layers compute from their weights what they apply
                copy.finalize_state()
    return new


def _check_fits(layer, norm_act, path, error):
    """Says at which layer the new one does not fit, if it is this."""
    try:
        _new_layer(layer, norm_act, True).build(layer.input.shape)
    except ValueError as reason:
        raise ValueError(f"norm_act must fit at {path}{layer.name}, but {reason}") from error


def _call_without_defaults(layer, *args, **kwargs):
    """Calls a layer as Keras 3 recorded it, less the empty arguments, such as a mask, that its substitute may not take."""
    return layer(*args, **{name: value for name, value in kwargs.items() if value is not None})


def _new_layer(layer, norm_act, apply_act):
    """The layer that takes a normalization's place."""
    settings = {"apply_act": apply_act, "name": layer.name}
    if getattr(layer, "gamma_initializer", None) is not None:
        settings["gamma_initializer"] = tf.keras.initializers.get(layer.get_config()["gamma_initializer"])
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    if axis == 1 and getattr(layer.input_spec, "ndim", None) != 2:
        settings["axis"] = 1
    return norm_act(**settings)
