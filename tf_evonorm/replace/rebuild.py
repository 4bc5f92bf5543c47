"""Copies a Keras model with another layer in place of every normalization and its activation."""

from __future__ import annotations

import collections
import functools
import inspect
import logging
import tempfile
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import tensorflow as tf

from tf_evonorm.layers.norm_act import NormAct
from tf_evonorm.mistakes import Mistake
from tf_evonorm.replace import kinds
from tf_evonorm.replace.graph import is_graph, nested_graph, without_inputs
from tf_evonorm.replace.positions import Plan, channels_first
from tf_evonorm.replace.stand_ins import PassThrough, SharedActivation
from tf_evonorm.replace.weight_files import guard

log = logging.getLogger(__name__)


def replace_norm_act(
    model: tf.keras.Model, norm_act: Callable[..., tf.keras.layers.Layer], keep: str | Collection[str] = ()
) -> tf.keras.Model:
    """Copies a model with every normalization replaced, together with the activation that follows it.

    A normalization followed by an activation becomes `norm_act(apply_act=True)`, which absorbs the activation,
    whichever it is: ReLU, swish, hard swish, GELU, ELU, leaky ReLU, a parametric one, or one written as arithmetic,
    as in x * sigmoid(x). A normalization that stands alone, as at the end of a residual branch, becomes
    `norm_act(apply_act=False)`, which for EvoNorm is the affine form. All other layers keep their names, settings and
    weights, and shared layers stay shared. Where an activation was, a layer of its name passes its input through, so
    `get_layer(name).output` still finds the activated tensor. Compile the result. Its `load_weights` refuses `.h5`
    files of the model from before, in which a moving mean would become v. What was replaced and absorbed
    is logged; `norm_act_places` lists it.

    New layers have the name of the normalization, its dtype policy, and its initializers, regularizers and
    constraints of gamma and beta. They are trainable, and always have gamma and beta.

    Args:
        model: functional or `Sequential` Keras model with BatchNormalization, GroupNormalization or subclasses of
            them, nested models included, also within `TimeDistributed`: those of `tf.keras.applications`, a backbone
            of this package, your own. It is not changed.
        norm_act: callable returning a fresh layer, such as `EvoNormB0` or `functools.partial(EvoNormS0,
            groups="auto")`. It is called as `norm_act(apply_act=..., gamma_initializer=..., name=...)`. Where the
            replaced layer has them, it also receives `axis=1` (channels first), `beta_initializer`,
            `gamma_regularizer`, `gamma_constraint`, `beta_regularizer`, `beta_constraint`, a `dtype` that is not the
            global policy, and, if it has this argument, `synchronized=True`. What a partial sets itself is not
            overridden.
        keep: names of normalizations that stay as they are, with their activations: those that `norm_act_places`
            returns, or names without the nested models before the slash.

    Returns:
        A new model of the same inputs and outputs. A functional subclass whose constructor has arguments of its own
        becomes a plain `tf.keras.Model`, which is logged as a warning.

    Raises:
        TypeError: model is no Keras model, or norm_act no class or function that makes layers.
        Mistake: what cannot be understood, naming every such normalization: a model that is not functional, or
            whose class changes what Keras models do; a layer that hides a normalization inside or cannot be copied; a
            normalization that feeds an activation and something else, or two different activations; an activation
            behind pooling, padding, noise or the like; channels that are neither last nor first; renormalization; an
            unknown function after a normalization; a name in keep that is no normalization; a model in which no
            normalization has an activation.

    Source: EvoNorm's published code, where a layer without nonlinearity is the affine only. LayerNormalization, which
        normalizes each position by itself, and Normalization of inputs are left as they are. In a post-activation
        ResNet the affine form leaves sums of branches unnormalized; the authors use EvoNorm in ResNet v2 only.
    """
    if isinstance(norm_act, tf.keras.layers.Layer) or not callable(norm_act):
        raise TypeError(
            f"norm_act must be a class or function that makes a layer, such as EvoNormB0. Received {norm_act!r}."
        )
    plan = Plan(model, keep)
    active = sum(position.apply_act for position in plan.positions.values())
    if not active:
        raise Mistake(
            f"a model must have a normalization followed by an activation. Received {model.name} with "
            f"{len(plan.positions)} normalizations, none of them before an activation; LayerNormalization stays. "
            "Put `norm_act` in by hand."
        )
    new = _Copy(plan, norm_act).model(model, "")
    guard(new)
    absorbed = ", ".join(f"{count} {name}" for name, count in collections.Counter(plan.functions).items())
    message = "%s: replaced %d normalizations with their activations (absorbed: %s) and %d that stood alone"
    log.info(message, model.name, active, absorbed or "none", len(plan.positions) - active)
    return new


class _Copy:
    """One copy of a model; every layer is copied once, wherever it is used."""

    def __init__(self, plan, norm_act):
        self.plan, self.norm_act = plan, norm_act
        self.copies = {}
        self.originals = []  # keeps the ids of `copies` valid
        self.active = set()  # ids of the new layers that have absorbed an activation

    def model(self, model, path):
        """The copy of a model with its weights; nested models are copied in the same way."""
        settings = {"clone_function": lambda layer: self.layer(layer, path)}
        arguments = inspect.signature(tf.keras.models.clone_model).parameters
        if "call_function" in arguments and not isinstance(model, tf.keras.Sequential):
            settings["call_function"] = _call
        try:
            new = tf.keras.models.clone_model(model, **settings)
        except ValueError as error:
            self._explain(model, path, error)
            raise
        if model.built and not new.built:
            raise without_inputs(model, path)
        for layer in getattr(model, "operations", model.layers):
            copy = self.copies.get(id(layer))
            if type(copy) is type(layer) and not is_graph(layer) and id(layer) not in self.plan.positions:
                _copy_state(layer, copy)
            elif isinstance(copy, SharedActivation):
                _copy_state(layer, copy.activation)
        if type(new) is not type(model):
            log.warning("%s%s: a %s becomes a %s", path, model.name, type(model).__name__, type(new).__name__)
        return new

    def layer(self, layer, path):
        """The copy of a layer, or what takes its position."""
        if id(layer) not in self.copies:
            self.originals.append(layer)
            self.copies[id(layer)] = self._new(layer, path)
        return self.copies[id(layer)]

    def _new(self, layer, path):
        nested = nested_graph(layer)
        if nested is layer:
            return self.model(layer, f"{path}{layer.name}/")
        if nested is not None:
            inner = self.layer(nested, f"{path}{layer.name}/")
            return type(layer)(inner, name=layer.name, dtype=dtype_policy(layer))
        if id(layer) in self.plan.positions:
            position = self.plan.positions[id(layer)]
            new = new_layer(layer, self.norm_act, position.apply_act, position.normalization)
            if position.apply_act:
                self.active.add(id(new))
            return new
        if id(layer) in self.plan.shared:
            shared = SharedActivation(_from_config(layer, path), name=layer.name, dtype=dtype_policy(layer))
            shared.absorbs = lambda source: id(source) in self.active
            return shared
        if id(layer) in self.plan.absorbed:
            return PassThrough(name=layer.name, dtype=tf.as_dtype(kinds.first_output(layer).dtype).name)
        return _from_config(layer, path)

    def _explain(self, model, path, error):
        """Says at which layer the new one does not fit, if it is this."""
        for layer in model.layers:
            if id(layer) in self.plan.positions and layer._inbound_nodes:
                position = self.plan.positions[id(layer)]
                try:
                    new = new_layer(layer, self.norm_act, position.apply_act, position.normalization)
                    new.build(kinds.first_input(layer).shape)
                except ValueError as reason:
                    raise Mistake(f"norm_act must fit at {path}{layer.name}, but {reason}") from error


def _from_config(layer, path):
    try:
        if type(layer) is tf.keras.layers.Lambda and hasattr(layer, "mask"):  # Keras 3 reads no Python function back
            shape, dtype = layer._output_shape, layer.dtype_policy
            return type(layer)(layer.function, shape, layer.mask, layer.arguments, name=layer.name, dtype=dtype)
        copy = type(layer).from_config(layer.get_config())
        if hasattr(layer, "_flatten_layers"):
            _copy_vocabularies(layer, copy)
        return copy
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise Mistake(
            f"a layer must be rebuilt by its config. Received {path}{layer.name} ({type(layer).__name__}): {error}. "
            "Give it get_config()."
        ) from error


def _call(layer, *args, **kwargs):
    """Calls a layer as Keras 3 recorded it, less what its substitute does not take: masks, constants, no value."""
    if isinstance(layer, PassThrough):
        return layer(next(x for x in tf.nest.flatten([args, kwargs]) if hasattr(x, "_keras_history")))
    given = {name: value for name, value in kwargs.items() if value is not None}
    if isinstance(layer, (NormAct, SharedActivation)):
        taken = inspect.signature(layer.call).parameters
        given = {name: value for name, value in given.items() if name in taken}
    return layer(*args, **given)


def _copy_state(layer, copy):
    """Copies the weights of a layer, and what preprocessing layers compute from them."""
    if getattr(layer, "weights", None):
        copy.set_weights(layer.get_weights())
        if hasattr(copy, "finalize_state"):
            copy.finalize_state()


def _copy_vocabularies(layer, copy):
    """Copies what adapted lookup layers have learned, before they are called."""
    for part, new in zip(layer._flatten_layers(), copy._flatten_layers()):
        if hasattr(part, "_lookup_layer"):
            continue  # TextVectorization, whose lookup layer is a part of its own
        if getattr(part, "output_mode", None) == "tf_idf":
            words, every = part.get_vocabulary(include_special_tokens=False), part.get_vocabulary()
            new.set_vocabulary(words, np.asarray(part.idf_weights)[len(every) - len(words) : len(every)])
        elif hasattr(part, "get_vocabulary") and hasattr(part, "load_assets"):
            with tempfile.TemporaryDirectory() as folder:
                part.save_assets(folder)
                new.load_assets(folder)
            variables: dict = {}
            part.save_own_variables(variables)
            new.load_own_variables(variables)


def dtype_policy(layer: tf.keras.layers.Layer) -> Any:
    """The dtype policy of a layer, of either Keras."""
    return getattr(layer, "dtype_policy", None) or layer._dtype_policy


def new_layer(
    layer: tf.keras.layers.Layer, norm_act: Callable[..., tf.keras.layers.Layer], apply_act: bool, name: str
) -> tf.keras.layers.Layer:
    """The layer that takes a normalization's position.

    Args:
        layer: the normalization.
        norm_act: callable returning a fresh layer.
        apply_act: whether the layer absorbs an activation.
        name: of the normalization with the models around it, for messages.
    """
    settings: dict[str, Any] = {"apply_act": apply_act, "name": layer.name}
    for weight in ("gamma", "beta"):
        initializer = getattr(layer, f"{weight}_initializer", None)
        if initializer is not None and (weight == "gamma" or type(initializer).__name__ != "Zeros"):
            settings[f"{weight}_initializer"] = _fresh(initializer, tf.keras.initializers)
        for option, module in (("regularizer", tf.keras.regularizers), ("constraint", tf.keras.constraints)):
            value = getattr(layer, f"{weight}_{option}", None)
            if value is not None:
                settings[f"{weight}_{option}"] = _fresh(value, module)
    if channels_first(layer, name):
        settings["axis"] = 1
    policy = dtype_policy(layer)
    if policy.name != tf.keras.mixed_precision.global_policy().name:
        settings["dtype"] = policy
    synchronized = getattr(layer, "synchronized", False) or type(layer).__name__ == "SyncBatchNormalization"
    if synchronized and "synchronized" in inspect.signature(norm_act).parameters:
        settings["synchronized"] = True
    own = norm_act.keywords if isinstance(norm_act, functools.partial) else {}
    return norm_act(**{name: value for name, value in settings.items() if name not in own})


def _fresh(value, module):
    """A copy of an initializer, regularizer or constraint; itself where its class cannot be found by its config."""
    try:
        return module.get(module.serialize(value))
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return value
