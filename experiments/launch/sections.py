"""Sections of a config as objects: the keyword arguments of one constructor each, checked before it is called."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from tf_evonorm.mistakes import Mistake

# Arguments that Keras' layers and models take by **kwargs.
_OF_KERAS = ("dtype", "trainable")
_PACKAGES = ("tf_evonorm", "tf_pixpro", "experiments")


class SectionMistake(Mistake):
    """A wrong section of the config; the message names it."""


def require(config: Mapping[str, Any], *names: str) -> None:
    """Checks that a config has all of these sections.

    Raises:
      SectionMistake: names those that are missing.
    """
    missing = [name for name in names if name not in config]
    if missing:
        raise SectionMistake(
            f"the config must have {', '.join(f'config.{name}' for name in names)}. Received none of the name "
            f"{', '.join(missing)}. Copy them from a config of the same program."
        )


def build(constructor: Callable[..., Any], name: str, section: Mapping[str, Any] | None, /, **more: Any) -> Any:
    """Calls `constructor` with a section of the config.

    Args:
      constructor: whose keyword arguments the section holds.
      name: of the section, for messages.
      section: the `ConfigDict`, or None for an empty one.
      **more: arguments that the program adds; the section must not name them.

    Returns:
      What the constructor returns.

    Raises:
      SectionMistake: if the section names an argument that the constructor does not have, or lacks one that it needs;
        also for a Mistake or FileNotFoundError of the constructor, or a ValueError of one of Keras, whose message then
        follows the section's name. Any other exception from inside the constructor, a TypeError too, is a bug and
        passes.
    """
    settings = dict(section or {})
    _check(constructor, name, settings, more)
    try:
        return constructor(**settings, **more)
    except SectionMistake:
        raise
    except (Mistake, FileNotFoundError) as error:
        raise SectionMistake(f"config.{name}: {error}") from error
    except ValueError as error:
        if _is_ours(constructor):
            raise
        raise SectionMistake(f"config.{name}: {error}") from error  # so Keras reports a wrong argument


def _is_ours(constructor):
    while isinstance(constructor, functools.partial):
        constructor = constructor.func
    return str(getattr(constructor, "__module__", "")).partition(".")[0] in _PACKAGES


def build_named(
    constructors: Mapping[str, Callable[..., Any]], section: str, settings: Mapping[str, Any], /, **more: Any
) -> Any:
    """Builds what a section's `name` names of `constructors`, with the section's other arguments; see `build`.

    Raises:
      SectionMistake: also if there is no such name.
    """
    settings = dict(settings)
    name = settings.pop("name", None)
    if name not in constructors:
        raise SectionMistake(
            f"config.{section}.name must be one of {', '.join(constructors)}. Received {name!r}."
            f"{_hint(name, constructors)}"
        )
    return build(constructors[name], section, settings, **more)


def _check(constructor: Callable[..., Any], name: str, settings: dict, more: dict) -> None:
    """Binds the signature first, so that a TypeError from inside the constructor keeps its traceback."""
    signature = _signature(constructor)
    parameters = signature.parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = [parameter.name for parameter in parameters if parameter.kind in kinds]
    free = [argument for argument in taken if argument not in more]
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        # A function with **options checks them itself; a class hands them to Keras.
        known = [*free, *_OF_KERAS] if inspect.isclass(constructor) else [*free, *settings]
    else:
        known = free
    of = getattr(constructor, "__name__", None) or getattr(getattr(constructor, "func", None), "__name__", "it")
    unknown = [key for key in settings if key not in known or key in more]
    if unknown:
        key = unknown[0]
        raise SectionMistake(
            f"config.{name} holds arguments of {of}. Received {key}={settings[key]!r}, which is none of them."
            f"{_hint(key, free)} It takes {', '.join(free)}."
        )
    try:
        signature.bind(**settings, **more)
    except TypeError as error:
        raise SectionMistake(
            f"config.{name} holds arguments of {of}. Received {settings}: {error}. It takes {', '.join(free)}."
        ) from error


def _signature(constructor: Callable[..., Any]) -> inspect.Signature:
    if not inspect.isclass(constructor):
        return inspect.signature(constructor)
    signature = inspect.signature(constructor.__init__)  # Keras' classes have a __new__ that takes anything
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _hint(given: object, known: Any) -> str:
    close = difflib.get_close_matches(str(given), list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""
