"""The one table from names to backbones, for configs and flags: `--config.backbone.name=mobilenetv2`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tf_evonorm import backbones
from tf_evonorm.mistakes import Mistake

BACKBONES: dict[str, Callable[..., backbones.Backbone]] = {
    "resnet": backbones.resnet,
    "preactivation_resnet": backbones.preactivation_resnet,
    "mobilenetv2": backbones.mobilenetv2,
    "mnasnet": backbones.mnasnet,
    "efficientnet": backbones.efficientnet,
    "spinenet": backbones.spinenet,
}


def backbone(name: str = "resnet", **arguments: Any) -> backbones.Backbone:
    """Builds a backbone by name.

    Args:
      name: a key of `BACKBONES`.
      **arguments: keyword arguments of that function. The model's own name is `model_name`, as `name` chooses the
        backbone.

    Returns:
      The model.

    Raises:
      Mistake: an unknown name, or an argument that the backbone does not have or refuses.
    """
    if name not in BACKBONES:
        raise Mistake(f"backbone.name must be one of {', '.join(BACKBONES)}. Received name={name!r}.")
    build, known = BACKBONES[name], inspect.signature(BACKBONES[name]).parameters
    if "model_name" in arguments:
        arguments["name"] = arguments.pop("model_name")
    unknown = [argument for argument in arguments if argument not in known]
    if unknown:
        accepted = ", ".join("model_name" if argument == "name" else argument for argument in known)
        raise Mistake(f"backbone {name} takes {accepted}. Received {', '.join(unknown)}.")
    return build(**arguments)
