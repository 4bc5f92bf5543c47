"""The installed commands `tf-pixpro` and `tf-evonorm`: their first argument names a binary, the rest are its flags."""

from __future__ import annotations

import ast
import difflib
import pathlib
import runpy
import sys

PROGRAMS = pathlib.Path(__file__).resolve().parents[1]
PIXPRO = ("pretrain", "classify", "transfer", "prepare", "predict", "convert", "export", "demo", "benchmark")
EVONORM = ("classify", "search", "synthesize", "export", "benchmark")


def pixpro() -> None:
    """The command `tf-pixpro`."""
    run("tf-pixpro", PIXPRO, sys.argv[1:])


def evonorm() -> None:
    """The command `tf-evonorm`."""
    run("tf-evonorm", EVONORM, sys.argv[1:])


def run(command: str, binaries: tuple, arguments: list) -> None:
    """Runs `experiments.BINARY` as if it had been started with `python -m`.

    Args:
      command: what the user typed, for messages.
      binaries: the names that it knows.
      arguments: those of the command line. --config=NAME or NAME.py, with :VARIANT or without, is a config that is
        installed here, if there is no such file.

    Raises:
      SystemExit: with one line, if the first argument is no name of a binary, --config neither a file nor an installed
        name, or a package is missing.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(len(name) for name in binaries)
        print(f"{command} BINARY [--flags], {command} BINARY --help\n")
        print("\n".join(f"  {name:{width}}  {purpose(name)}" for name in binaries))
        return
    name, *rest = arguments
    if name not in binaries:
        sys.exit(
            f"{command}: the first argument must be one of {', '.join(binaries)}. Received {name!r}. "
            f"See {command} --help."
        )
    if "--config" in rest[:-1]:  # the flag and its value as two words
        place = rest.index("--config")
        rest[place : place + 2] = [f"--config={rest[place + 1]}"]
    sys.argv = [name, *map(installed, rest)]
    try:
        runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        sys.exit(
            f"{command}: the packages of the extra `experiments` are needed. Received no {error.name}. "
            "Install [experiments]."
        )


def purpose(name: str) -> str:
    """The first line of a binary's file."""
    return (ast.get_docstring(ast.parse((PROGRAMS / f"{name}.py").read_text())) or "").partition("\n")[0]


def installed(argument: str) -> str:
    """--config=NAME -> --config=/where/it/is/KIND/NAME.py; anything else as it is."""
    flag, _, value = argument.partition("=")
    file, colon, variant = value.partition(":")
    name = file.removesuffix(".py")
    configs = {config.stem: config for config in (PROGRAMS / "configs").rglob("*.py") if config.stem != "__init__"}
    if flag.lstrip("-") != "config" or not name.isidentifier() or pathlib.Path(file).is_file():
        return argument
    if name not in configs:
        known = sorted(configs)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"There are {', '.join(known)}."
        sys.exit(f"--config must be a file or the name of an installed config. Received {file!r}. {hint}")
    return f"{flag}={configs[name]}{colon}{variant}"
