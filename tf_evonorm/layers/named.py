"""The one table from names to layers, for configs and flags: `--config.norm_act.name=evonorm_s0`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_evonorm import layers
from tf_evonorm.mistakes import Mistake

LAYERS: dict[str, Callable[..., tf.keras.layers.Layer]] = {
    "bn_relu": layers.BatchNormAct,
    "bn_silu": functools.partial(layers.BatchNormAct, activation="silu"),
    "bn_swish": functools.partial(layers.BatchNormAct, activation="swish_v"),
    "gn_relu": layers.GroupNormAct,
    "gn_silu": functools.partial(layers.GroupNormAct, activation="silu"),
    "ln_relu": layers.LayerNormAct,
    "pixel_relu": layers.PixelNormAct,
    "frn": layers.FilterResponseNormAct,
    "evonorm_b0": layers.EvoNormB0,
    "evonorm_b1": layers.EvoNormB1,
    "evonorm_b2": layers.EvoNormB2,
    "evonorm_s0": layers.EvoNormS0,
    "evonorm_s1": layers.EvoNormS1,
    "evonorm_s2": layers.EvoNormS2,
}
ALIASES = {"batch_norm": "bn_relu", "group_norm": "gn_relu"}  # of configs written before the names were one table
GROUPED = ("gn_", "evonorm_s")


def norm_act(
    name: str = "bn_relu", *, layer: str | None = None, **options: Any
) -> Callable[..., tf.keras.layers.Layer] | None:
    """The `norm_act` argument of backbones, by name.

    Args:
      name: a key of `LAYERS` or `ALIASES`, or "default" for the backbone's own layers.
      layer: the same, for configs written before the argument was called `name`.
      **options: keyword arguments of that layer. Layers with groups take groups="auto" unless it is given.

    Returns:
      A callable that returns fresh layers, or None for "default".

    Raises:
      Mistake: an unknown name, or an option that the layer does not have or accept.
    """
    name = name if layer is None else layer
    if name == "default" and not options:
        return None
    make = LAYERS.get(ALIASES.get(name, name))
    if make is None:
        received = f"name={name!r}" + (f" with {options}" if options else "")
        raise Mistake(f"norm_act.name must be default or one of {', '.join(LAYERS)}. Received {received}.")
    if ALIASES.get(name, name).startswith(GROUPED):
        options = {"groups": "auto", **options}
    make = functools.partial(make, **options)
    try:
        inspect.signature(make).bind()
        make()
    except (TypeError, ValueError) as error:
        raise Mistake(f"norm_act holds options of {name}. Received {options}: {error}") from error
    return make
