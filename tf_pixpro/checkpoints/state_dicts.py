"""Files of weights by name from elsewhere, and the encoder among them: which entry, which prefix, which names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tf_evonorm.mistakes import Mistake
from tf_pixpro.checkpoints import numpy_pickle, pth, unpickle

# What data-parallel training, torch.compile, FSDP and activation checkpoints put into names, the first in front alone.
_WRAPPERS = re.compile(r"^(module\.)+|(?<![^.])_(orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.")
_STEM = "conv1.weight"
_RESNET = re.compile(r"(conv1|bn1|layer[1-4]\.\d+\.(conv|bn)\d|layer[1-4]\.\d+\.downsample\.[01])\.[a-z_]+")
_ENCODER = re.compile(rf"(^|\.){_RESNET.pattern}$")
# Encoders that follow another one, in MoCo, BYOL, SimSiam, lightly, solo-learn and the authors' file.
_FOLLOWERS = re.compile(r"(^|[._])(encoder_k|momentum|target|ema|k)[._]|_(momentum|target|ema|k)\.")
# detectron2's names of torchvision's parts.
_DETECTRON = (
    (re.compile(r"^stem\.conv1\.norm\."), "bn1."),
    (re.compile(r"^stem\.conv1\."), "conv1."),
    (re.compile(r"^res([2-5])\.(\d+)\.conv(\d)\.norm\."), lambda m: f"layer{int(m[1]) - 1}.{m[2]}.bn{m[3]}."),
    (re.compile(r"^res([2-5])\.(\d+)\.conv(\d)\."), lambda m: f"layer{int(m[1]) - 1}.{m[2]}.conv{m[3]}."),
    (re.compile(r"^res([2-5])\.(\d+)\.shortcut\.norm\."), lambda m: f"layer{int(m[1]) - 1}.{m[2]}.downsample.1."),
    (re.compile(r"^res([2-5])\.(\d+)\.shortcut\."), lambda m: f"layer{int(m[1]) - 1}.{m[2]}.downsample.0."),
)


def read(path: str | os.PathLike) -> Any:
    """Reads a file of PyTorch, of safetensors (`.safetensors`) or of detectron2 (`.pkl`); nothing in it is run.

    Args:
      path: of the file; its ending says which kind it is.

    Returns:
      Dicts, lists, numbers and texts; tensors as NumPy arrays.

    Raises:
      FileNotFoundError: if there is no such file.
      Mistake: if the file is of another kind, damaged, or has tensors that NumPy has no type for.
    """
    path = os.fspath(path)
    if path.endswith(".pkl"):
        return numpy_pickle.read(path)
    if not path.endswith(".safetensors"):
        return pth.read(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"a .safetensors file is needed. Received {path!r}, where there is none.")
    try:
        from safetensors import SafetensorError  # of the extra `experiments`
        from safetensors.numpy import load_file
    except ImportError as error:
        raise Mistake(f"{path!r} needs the package safetensors: pip install safetensors.") from error
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError, OSError, ValueError) as error:
        raise Mistake(
            f"{path!r} must be a safetensors file of float or integer tensors that NumPy knows. Received one that "
            f"cannot be read: {error!r}."
        ) from error


def state_dict(tree: Any, key: str | None = None) -> dict[str, np.ndarray]:
    """The weights by name in what `read` gave.

    Args:
      tree: of a file.
      key: entries that lead to the weights, joined by dots, such as 'model' or 'state.teacher'; None finds the one
        dict that holds a ResNet's or the authors' weights.

    Returns:
      name -> array, without what data-parallel training, torch.compile and FSDP put into names; arrays alone.

    Raises:
      Mistake: if there is none, or several and no key; if weights of the encoder are tensors that `read` could not
        read, as sparse, quantized or 8-bit ones.
    """
    found = dict(_dicts(tree))
    if key is not None:
        if key not in found:
            raise Mistake(
                f"--key must lead to weights by name. Received {key!r}; the file has {_list(found) or 'none'}."
            )
        return found[key]
    likely = {path: state for path, state in found.items() if any(name.endswith(_STEM) for name in state)} or found
    for path in ("model", "state_dict"):  # of the authors and of PyTorch's own examples
        if path in likely:
            return likely[path]
    if len(likely) != 1:
        raise Mistake(
            f"one dict of weights by name is needed. Received {len(likely)}{': ' if likely else ''}{_list(likely)}. "
            f"{'Pass one of them as --key.' if likely else 'Save a state_dict().'}"
        )
    return next(iter(likely.values()))


def encoder_state(
    state: Mapping[str, np.ndarray], prefix: str | None = None
) -> tuple[dict[str, np.ndarray], str, list[str]]:
    """A ResNet's weights among others.

    Args:
      state: see `state_dict`.
      prefix: what the encoder's names begin with, such as 'encoder_q.'; None finds the only encoder, or the only one
        that does not follow another by momentum.

    Returns:
      (its weights under torchvision's names, the prefix, the names of all others).

    Raises:
      Mistake: if there is no ResNet below the prefix, or several and no prefix.
    """
    state = _of_torchvision(state)
    prefixes = sorted({name[: -len(_STEM)] for name in state if name == _STEM or name.endswith(f".{_STEM}")})
    prefixes = [one for one in prefixes if any(name.startswith(f"{one}layer1.0.") for name in state)]
    if prefix is None:
        learning = [one for one in prefixes if not _FOLLOWERS.search(one)]
        if len(learning) != 1:
            raise Mistake(
                "one ResNet (conv1.weight and layer1 to layer4) is needed. Received weights of "
                f"{f'{len(learning)}: ' + ', '.join(map(repr, learning)) if learning else 'none'} among "
                f"{len(state)} such as {', '.join(map(repr, list(state)[:3])) or 'none'}. "
                f"{'Pass one of them as --prefix.' if prefixes else 'Other networks have no counterpart here.'}"
            )
        (prefix,) = learning
    elif prefix not in prefixes:
        raise Mistake(
            f"--prefix must lead to a ResNet. Received {prefix!r}; the file has "
            f"{', '.join(map(repr, prefixes)) or 'none'}."
        )
    chosen = {name: name[len(prefix) :] for name in state if name.startswith(prefix)}
    chosen = {name: inner for name, inner in chosen.items() if _RESNET.fullmatch(inner)}
    return (
        {inner: state[name] for name, inner in chosen.items()},
        prefix,
        [name for name in state if name not in chosen],
    )


def _dicts(tree: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(path, weights by name) of every dict that holds arrays, the outermost first."""
    if not isinstance(tree, Mapping) or depth > 4:
        return
    arrays = {name: value for name, value in tree.items() if isinstance(name, str) and isinstance(value, np.ndarray)}
    for name, value in tree.items():
        if isinstance(value, unpickle.Opaque) and value.name.startswith("torch") and _ENCODER.search(str(name)):
            raise Mistake(
                f"weights must be dense tensors of numbers that NumPy has. Received {name!r} as {value.name}. Save the "
                "model's state_dict() in float32."
            )
    if arrays:
        yield path, {_unwrapped(name): value for name, value in arrays.items() if not name.endswith("batches_tracked")}
    for name, value in tree.items():
        yield from _dicts(value, f"{path}.{name}" if path else str(name), depth + 1)


def _unwrapped(name: str) -> str:
    while (bare := _WRAPPERS.sub("", name)) != name:
        name = bare
    return name


def _of_torchvision(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """detectron2's names in torchvision's; others as they are."""
    if not any(name.startswith("stem.conv1.") for name in state):
        return dict(state)
    renamed = {}
    for name, value in state.items():
        for pattern, ours in _DETECTRON:
            name = pattern.sub(ours, name)
        renamed[name] = value
    return renamed


def _list(found: Mapping[str, Mapping]) -> str:
    return ", ".join(f"{path!r} ({len(state)} arrays)" for path, state in list(found.items())[:8])
