"""Normalization and activation by the paper's names, for flags and configs: `--config.norm_act.layer=evonorm_s0`."""

from __future__ import annotations

import functools

import tf_evonorm

LAYERS = {
    "bn_relu": tf_evonorm.BatchNormAct,
    "bn_silu": functools.partial(tf_evonorm.BatchNormAct, activation="silu"),
    "bn_swish": functools.partial(tf_evonorm.BatchNormAct, activation="swish_v"),
    "gn_relu": tf_evonorm.GroupNormAct,
    "gn_silu": functools.partial(tf_evonorm.GroupNormAct, activation="silu"),
    "ln_relu": tf_evonorm.LayerNormAct,
    "pixel_relu": tf_evonorm.PixelNormAct,
    "frn": tf_evonorm.FilterResponseNormAct,
    "evonorm_b0": tf_evonorm.EvoNormB0,
    "evonorm_b1": tf_evonorm.EvoNormB1,
    "evonorm_b2": tf_evonorm.EvoNormB2,
    "evonorm_s0": tf_evonorm.EvoNormS0,
    "evonorm_s1": tf_evonorm.EvoNormS1,
    "evonorm_s2": tf_evonorm.EvoNormS2,
}


def norm_act(layer: str = "bn_relu", **options):
    """What backbones take as `norm_act`.

    Args:
      layer: a name in `LAYERS`, or "default" for the backbone's own.
      **options: keyword arguments of that layer. Layers with groups take groups="auto" unless told otherwise.

    Returns:
      A callable returning fresh layers, or None for "default".

    Raises:
      ValueError: for an unknown layer or option.
    """
    if layer == "default" and not options:
        return None
    if layer not in LAYERS:
        given = f"layer={layer!r}" + (f" with {options}" if options else "")
        raise ValueError(f"config.norm_act.layer must be default or one of {', '.join(LAYERS)}. Received {given}.")
    if layer.startswith(("gn_", "evonorm_s")):
        options = {"groups": "auto", **options}
    make = functools.partial(LAYERS[layer], **options)
    try:
        make()
    except TypeError as error:
        raise ValueError(f"config.norm_act holds options of {layer}. Received {options}: {error}.") from error
    return make
