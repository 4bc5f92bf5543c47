"""Experiments, a folder for each program; `from experiments.configs import NAME` finds a config in whichever folder it
is."""

import importlib
import pathlib
import types


def __getattr__(name: str) -> types.ModuleType:
    found = sorted(pathlib.Path(__file__).parent.glob(f"*/{name}.py"))
    if not found or name.startswith("_"):
        raise AttributeError(f"no config has this name. Received {name!r}.")
    return importlib.import_module(f"experiments.configs.{found[0].parent.name}.{name}")
