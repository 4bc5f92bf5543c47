"""Experiments, a folder for each program.

`from experiments.configs import NAME` finds a config in whichever folder it is, as files of version 0.1 import it; its
`encoder` is then the section `backbone`.
"""

import functools
import importlib
import pathlib
import types
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict


def __getattr__(name: str) -> types.ModuleType:
    found = sorted(pathlib.Path(__file__).parent.glob(f"*/{name}.py"))
    if not found or name.startswith("_"):
        raise AttributeError(f"no config has this name. Received {name!r}.")
    module = importlib.import_module(f"experiments.configs.{found[0].parent.name}.{name}")
    old = types.ModuleType(module.__name__, module.__doc__)
    old.__dict__.update({**vars(module), "get_config": functools.partial(_with_encoder, module.get_config)})
    return old


def _with_encoder(get_config: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """A config whose section `backbone` has its name of version 0.1 as well; a session drops that name."""
    config = get_config(*arguments, **options)
    if isinstance(config, ConfigDict) and "backbone" in config and "encoder" not in config:
        config.encoder = config.backbone
    return config
