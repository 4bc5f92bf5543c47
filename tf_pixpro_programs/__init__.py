"""The commands `tf-pixpro` and `tf-evonorm` of an installation, whose `experiments` lies inside this package.

A wheel that put `experiments` beside the libraries would claim that name for every project of the environment. The
commands make it importable for their own process and its children alone.
"""

import importlib
import os
import pathlib
import sys

_HERE = pathlib.Path(__file__).resolve().parent
FOLDER = _HERE if (_HERE / "experiments").is_dir() else _HERE.parent  # beside it in a checkout


def pixpro() -> None:
    """The command `tf-pixpro`."""
    _commands().pixpro()


def evonorm() -> None:
    """The command `tf-evonorm`."""
    _commands().evonorm()


def _commands():
    sys.path.insert(0, str(FOLDER))
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(FOLDER), *([inherited] if inherited else [])])
    return importlib.import_module("experiments.launch.commands")
