"""The primitives of layers: their names, how they are drawn and printed, and their values in NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence

import numpy as np

from tf_evonorm.mistakes import Mistake

ELEMENTWISE = {
    "add": 2,
    "mul": 2,
    "div": 2,
    "max": 2,
    "neg": 1,
    "sigmoid": 1,
    "tanh": 1,
    "exp": 1,
    "log": 1,
    "abs": 1,
    "square": 1,
    "sqrt": 1,
}
MOMENTS = ("mean", "rms", "std")
OVER = ("batch", "layer", "instance", "group")
ARITY = {**ELEMENTWISE, **{f"{moment}_{over}": 1 for moment in MOMENTS for over in OVER}}
COMMUTATIVE = ("add", "mul", "max")
DRAWS = ("families", "operations")

_TEXT = {
    "add": "({} + {})",
    "mul": "({} * {})",
    "div": "({} / {})",
    "max": "max({}, {})",
    "neg": "(-{})",
}
_LATEX = {
    "add": r"({} + {})",
    "mul": r"{} \cdot {}",
    "div": r"\frac{{{}}}{{{}}}",
    "max": r"\max({}, {})",
    "neg": r"(-{})",
    "sigmoid": r"\sigma({})",
    "tanh": r"\tanh({})",
    "exp": r"\exp({})",
    "log": r"\mathrm{{sgn\,ln}}({})",
    "abs": r"|{}|",
    "square": r"({})^2",
    "sqrt": r"\mathrm{{sgn\,sqrt}}({})",
}
_SETS = {"batch": "b,w,h", "layer": "w,h,c", "instance": "w,h", "group": "w,h,c/g"}
_SYMBOLS = {"mean": r"\mu", "rms": r"\mathrm{rms}", "std": "s"}


@dataclasses.dataclass(frozen=True)
class Protection:
    """Constants that keep primitives away from their poles; 0 disables one.

    Attributes:
      division: e of x / (y + e * sign(y)).
      logarithm: e of sign(x) * ln(|x| + e).
      moments: e added to a variance or mean square, inside the square root.
      sign_of_zero: value of sign(0) in a division; with 0, x / 0 is not finite and such layers are rejected.

    Source: Table 1 of the paper's first version, which prints e without a value; 1e-5 is that of the authors' layers.
      Later versions omit e from the table. The paper does not give the sign of 0.
    """

    division: float = 1e-5
    logarithm: float = 1e-5
    moments: float = 1e-5
    sign_of_zero: float = 1.0


USUAL = Protection()


def split(operation: str) -> tuple[str, str | None]:
    """Splits 'std_batch' into ('std', 'batch'); an element-wise operation is returned as (name, None)."""
    name, _, over = operation.partition("_")
    return name, over or None


def draw(rng: np.random.Generator, by: str = "families", without: Collection[str] = ()) -> str:
    """Draws an operation.

    Args:
      rng: random generator.
      by: "families" draws uniformly one of 15 families and then the index set; "operations" one of 24 operations.
      without: index sets that are never drawn, such as ("batch",).

    Raises:
      Mistake: for an unknown `by` or index set.

    Source: EvoNorm paper, section 3 ("uniformly"), which does not say which of the two.
    """
    if by not in DRAWS or set(without) - set(OVER) or set(without) == set(OVER):
        raise Mistake(
            f"by must be one of {DRAWS} and without a proper subset of {OVER}. Received by={by!r}, without={without!r}."
        )
    sets = [over for over in OVER if over not in without]
    families = [[name] for name in ELEMENTWISE] + [[f"{moment}_{over}" for over in sets] for moment in MOMENTS]
    if by == "operations":
        families = [[name] for family in families for name in family]
    family = families[rng.integers(len(families))]
    return family[rng.integers(len(family))] if len(family) > 1 else family[0]


def apply(operation: str, values: Sequence[np.ndarray], protection: Protection = USUAL, groups: int = 1) -> np.ndarray:
    """Computes one operation in NumPy.

    Args:
      operation: a key of `ARITY`.
      values: arrays that broadcast to [B, ..., C]; an axis of size 1 means equal values along it.
      protection: constants of the primitives.
      groups: number of groups of adjacent channels, a divisor of C.

    Returns:
      Array that broadcasts to [B, ..., C]. Values may be infinite or NaN, without a warning.

    Source: EvoNorm paper, Table 1; all variances divide by n.
    """
    name, over = split(operation)
    with np.errstate(all="ignore"):
        return (
            _ELEMENTWISE[name](protection, *values)
            if over is None
            else _moment(name, over, values[0], protection, groups)
        )


def text(operation: str, inputs: Sequence[str]) -> str:
    """Prints an operation on printed inputs as text."""
    return _TEXT.get(operation, operation + "({})").format(*inputs)


def latex(operation: str, inputs: Sequence[str]) -> str:
    """Prints an operation on printed inputs as LaTeX that matplotlib can render."""
    name, over = split(operation)
    if over is None:
        return _LATEX[name].format(*inputs)
    return f"{_SYMBOLS[name]}_{{{_SETS[over]}}}({inputs[0]})"


def _sigmoid(_: Protection, x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _divided(protection: Protection, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    sign = np.where(y == 0, protection.sign_of_zero, np.sign(y))
    return x / (y + protection.division * sign)


_ELEMENTWISE: dict[str, Callable] = {
    "add": lambda _, x, y: x + y,
    "mul": lambda _, x, y: x * y,
    "div": _divided,
    "max": lambda _, x, y: np.maximum(x, y),
    "neg": lambda _, x: -x,
    "sigmoid": _sigmoid,
    "tanh": lambda _, x: np.tanh(x),
    "exp": lambda _, x: np.exp(x),
    "log": lambda protection, x: np.sign(x) * np.log(np.abs(x) + protection.logarithm),
    "abs": lambda _, x: np.abs(x),
    "square": lambda _, x: np.square(x),
    "sqrt": lambda _, x: np.sign(x) * np.sqrt(np.abs(x)),
}


def _moment(name: str, over: str, x: np.ndarray, protection: Protection, groups: int) -> np.ndarray:
    if name == "mean":
        return _mean(x, over, groups)
    centred = x if name == "rms" else x - _mean(x, over, groups)
    return np.sqrt(_mean(np.square(centred), over, groups) + protection.moments)


def _mean(x: np.ndarray, over: str, groups: int) -> np.ndarray:
    spatial = tuple(range(1, x.ndim - 1))
    if over == "batch":
        return x.mean((0, *spatial), keepdims=True)
    if over == "layer":
        return x.mean((*spatial, x.ndim - 1), keepdims=True)
    x = x.mean(spatial, keepdims=True)
    if over == "instance" or x.shape[-1] == 1:
        return x
    size = x.shape[-1] // groups
    return np.repeat(x.reshape(*x.shape[:-1], groups, size).mean(-1), size, -1)
