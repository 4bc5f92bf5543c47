"""The authors' checkpoints and our models: the same weights and buffers under their names and axis order."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import tensorflow as tf

from tf_evonorm.mistakes import Mistake

# What a layer's variables are called there.
_ATTRIBUTES = {
    "weight": ("kernel", "gamma"),
    "bias": ("bias", "beta"),
    "running_mean": ("moving_mean",),
    "running_var": ("moving_variance",),
}
_HEAD = {"linear1": "expand", "bn1": "norm", "linear2": "reduce"}
_ORDER = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1")
_SHOWN = 8
_DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
}


def names(model: tf.keras.Model) -> dict[str, tf.Variable]:
    """Names in the authors' state dict (without `module.`), in its order, and the variables of a pretext model.

    Args:
      model: a `PixPro` on a ResNet of `tf_evonorm.backbones.resnet`, whose layers bear the authors' names; its instance
        term, if any, a `BYOL`.

    Raises:
      Mistake: if the authors' code has no such model.
    """
    theirs = model.instance is None or hasattr(model.instance, "prediction")
    if not theirs or not hasattr(model.propagation, "value"):
        raise Mistake(
            "the authors' code has pixel propagation, alone or with the BYOL-like term. Received a model of "
            "another kind. "
            "Save its encoder with save_backbone."
        )
    layers = _encoder_layers("encoder.", model.encoder)
    layers.update(_head_layers("projector", model.projection))
    layers.update(_encoder_layers("encoder_k.", model.momentum_encoder))
    layers.update(_head_layers("projector_k", model.momentum_projection))
    values = model.propagation.value
    if len(values) == 1:
        layers["value_transform"] = values[0]
    elif values:
        parts = zip(("linear1", "bn1", "linear2"), (values[0], model.propagation.norm, values[1]))
        layers.update({f"value_transform.{name}": layer for name, layer in parts})
    if model.instance is not None:
        layers.update(_head_layers("projector_instance", model.instance.projection))
        layers.update(_head_layers("projector_instance_k", model.momentum_instance))
        layers.update(_head_layers("predictor", model.instance.prediction))
    return _variables(layers)


def encoder_names(encoder: tf.keras.Model) -> dict[str, tf.Variable]:
    """The same for an encoder alone, whose names are torchvision's."""
    return _variables(_encoder_layers("", encoder))


def encoder_arguments(state: dict) -> dict:
    """What the shapes of a ResNet's state dict say of it: keyword arguments of `tf_evonorm.backbones.resnet`.

    Raises:
      Mistake: if it is no ResNet's.
    """
    found = [
        {int(m[2]) for m in map(re.compile(r"layer(\d)\.(\d+)\.").match, state) if m and int(m[1]) == n}
        for n in range(1, 5)
    ]
    blocks = tuple(map(len, found))
    if np.ndim(state.get("conv1.weight")) != 4 or not all(blocks):
        raise Mistake(
            "a ResNet has conv1.weight and layer1 to layer4. Received a state dict of "
            f"{len(state)} entries such as {', '.join(map(repr, list(state)[:3])) or 'none'}."
        )
    bottleneck = "layer1.0.conv3.weight" in state
    arguments: dict = {"depth": _DEPTHS.get((bottleneck, blocks), 50 if bottleneck else 18)}
    if (bottleneck, blocks) not in _DEPTHS:
        arguments["blocks"] = blocks
    if len(state["conv1.weight"]) != 64:
        arguments["width"] = len(state["conv1.weight"]) / 64
    return arguments


def model_arguments(state: dict) -> dict[str, dict]:
    """What the shapes of the authors' state dict say of its model: keyword arguments by part.

    Args:
      state: see `tf_pixpro.checkpoints.state_dicts.state_dict`.

    Returns:
      {'encoder', 'projection', 'propagation'} and, if the branch is there, 'instance', arguments of `BYOL`.

    Raises:
      Mistake: if it is not theirs.
    """

    def head(name):
        shapes = [np.shape(state.get(f"{name}.{layer}.weight")) for layer in ("linear1", "linear2")]
        if not all(shapes):
            raise Mistake(f"the authors' models have {name}.linear1 and {name}.linear2. Received a state dict without.")
        return {"hidden": shapes[0][0], "features": shapes[1][0]}

    layers = 1 if "value_transform.weight" in state else 2 if "value_transform.linear1.weight" in state else 0
    parts = {
        "encoder": encoder_arguments(
            {n.removeprefix("encoder."): v for n, v in state.items() if n.startswith("encoder.")}
        ),
        "projection": head("projector"),
        "propagation": {"value_layers": layers},
    }
    if any(name.startswith("projector_instance.") for name in state):
        parts["instance"] = head("projector_instance")
    return parts


def load(named: dict, state: dict) -> None:
    """Gives variables the values of a state dict: all, or an error that names what does not fit and changes nothing.

    Args:
      named: from `names` or `encoder_names`.
      state: name -> NumPy array in PyTorch's axis order, see `tf_pixpro.checkpoints.state_dicts.state_dict`.

    Raises:
      Mistake: if a name is missing on either side, or a shape differs.
    """
    faults = [f"{name} is missing" for name in named if name not in state]
    faults += [f"{name} has no place in the model" for name in state if name not in named]
    for name in (n for n in named if n in state):
        value = np.asarray(state[name])
        if kernel(value).shape != tuple(named[name].shape):
            faults.append(f"{name} is {list(value.shape)}, which must be {list(_torch(named[name]).shape)}")
        elif not np.isfinite(value).all():
            faults.append(f"{name} holds numbers that are not finite")
    if faults:
        rest = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise Mistake(f"the weights must be those of the model. Received others: {'; '.join(faults[:_SHOWN])}{rest}.")
    for name, variable in named.items():
        variable.assign(kernel(np.asarray(state[name])).astype(tf.as_dtype(variable.dtype).name))


def state(model: tf.keras.Model, batches: int = 0) -> dict[str, np.ndarray]:
    """A model as the authors' state dict, with their `module.` and their order.

    Args:
      model: as in `names`.
      batches: value of `num_batches_tracked` of every batch normalization, a count that ours do not keep.
    """
    result = {}
    for name, variable in names(model).items():
        result[f"module.{name}"] = _torch(variable)
        if name.endswith("running_var"):
            result[f"module.{name.removesuffix('running_var')}num_batches_tracked"] = np.array(batches, np.int64)
    return result


def optimized(model: tf.keras.Model) -> list[str]:
    """Names of the trained weights in the order of the authors' optimizer: first those without decay (one axis)."""
    followers = ("encoder_k.", "projector_k.", "projector_instance_k.")
    learned = {n: v for n, v in names(model).items() if not n.startswith(followers) and "running" not in n}
    return [n for flat in (True, False) for n, v in learned.items() if (len(v.shape) == 1) == flat]


def load_buffers(model: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer, saved: dict) -> None:
    """Gives a built `LARS` the momentum buffers of the authors' optimizer.

    Args:
      model: as in `names`.
      optimizer: a `LARS`, built on the model's trainable weights.
      saved: the file's `optimizer` entry.

    Raises:
      Mistake: if the entry is no state of their LARS for this model.
    """
    order, slots = optimized(model), _slots(optimizer, model)
    try:
        indices = [index for group in saved["param_groups"] for index in group["params"]]
        buffers = [saved["state"][index]["momentum_buffer"] for index in indices]
    except (KeyError, TypeError) as error:
        raise Mistake(f"optimizer must hold state and param_groups with momentum buffers. Missing: {error}.") from error
    if len(buffers) != len(order):
        raise Mistake(f"optimizer must hold {len(order)} buffers, as the model has weights. Received {len(buffers)}.")
    load({name: slots[name] for name in order}, dict(zip(order, buffers)))


def buffers(model: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer, **hyperparameters: Any) -> dict:
    """The state of a built `LARS` as the authors' `optimizer` entry.

    Args:
      model, optimizer: as in `load_buffers`.
      **hyperparameters: further entries of both groups, such as lr; torch.optim.SGD wants all of its own.
    """
    order, slots = optimized(model), _slots(optimizer, model)
    flat = sum(len(slots[name].shape) == 1 for name in order)
    common = {"momentum": float(optimizer.momentum), "dampening": 0, "nesterov": False, **hyperparameters}
    groups = [
        {"weight_decay": 0.0, **common, "params": list(range(flat))},
        {"weight_decay": float(optimizer.decay), **common, "params": list(range(flat, len(order)))},
    ]
    state = {index: {"momentum_buffer": _torch(slots[name])} for index, name in enumerate(order)}
    return {"state": state, "param_groups": groups}


def kernel(array: np.ndarray) -> np.ndarray:
    """PyTorch's axis order into Keras': [out, in, h, w] -> [h, w, in, out]; anything else as it is."""
    return np.transpose(array, (2, 3, 1, 0)) if array.ndim == 4 else array


def _torch(variable):
    array = np.asarray(variable)
    return np.ascontiguousarray(np.transpose(array, (3, 2, 0, 1)) if array.ndim == 4 else array)


def _slots(optimizer, model):
    variables = names(model)
    slots = {name: optimizer.buffer_of(variables[name]) for name in optimized(model)}
    return slots


def _encoder_layers(prefix, encoder):
    layers = {layer.name: layer for layer in encoder.layers if layer.weights}
    return {f"{prefix}{name}": layers[name] for name in sorted(layers, key=_place)}


def _place(name):
    """Where the authors' ResNet defines a layer: stem, then block by block, the shortcut last."""
    block = re.match(r"layer(\d+)\.(\d+)\.(.*)", name)
    where, part = ((int(block[1]), int(block[2])), block[3]) if block else ((0, 0), name)
    return where, _ORDER.index(part) if part in _ORDER else len(_ORDER), part


def _head_layers(name, head):
    return {f"{name}.{theirs}": getattr(head, ours) for theirs, ours in _HEAD.items()}


def _variables(layers):
    named = {}
    for module, layer in layers.items():
        for theirs, ours in _ATTRIBUTES.items():
            found = [getattr(layer, attribute, None) for attribute in ours]
            found = [variable for variable in found if hasattr(variable, "assign")]
            if found:
                named[f"{module}.{theirs}"] = found[0]
    return named
