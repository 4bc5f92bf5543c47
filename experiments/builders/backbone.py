"""The backbone of a config: its sections `backbone` and `norm_act`, in every program."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from experiments.launch import sections
from tf_evonorm.backbones.named import BACKBONES
from tf_evonorm.layers import named


def backbone(config: Mapping[str, Any], **more: Any) -> tf.keras.Model:
    """The backbone that `config.backbone.name` names, new weights.

    Arguments that only another backbone has, such as the depth in a config that was made for a ResNet, are left out, so
    that
    --config.backbone.name alone changes it.

    Args:
      config: with the section `backbone`; one that was recorded earlier calls it `encoder`.
      **more: arguments that the program adds.
    """
    settings = {"name": "resnet", **(config.get("backbone") or config.get("encoder") or {})}
    if settings["name"] in BACKBONES:
        own = inspect.signature(BACKBONES[settings["name"]]).parameters
        others = {argument for build in BACKBONES.values() for argument in inspect.signature(build).parameters}
        settings = {key: value for key, value in settings.items() if key == "name" or key in own or key not in others}
    return sections.build_named(BACKBONES, "backbone", settings, **more)


def norm_act(config: Mapping[str, Any]) -> Any:
    """The layer that `config.norm_act.name` names, as backbones take it."""
    return sections.build(named.norm_act, "norm_act", config.get("norm_act"))
