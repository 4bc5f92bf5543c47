"""The error that ends a run whose loss or gradient is no longer finite."""

from __future__ import annotations


def non_finite(when: str, step: int, kept: str = "") -> FloatingPointError:
    """The error, to be raised.

    Args:
      when: 'at' the step, or 'by' it where several steps were one.
      step: the number of the step.
      kept: a sentence on what was saved before.
    """
    return FloatingPointError(
        f"loss and gradient must stay finite. They did not {when} step {step}. Start again with a "
        f"lower learning rate, a longer warm-up or float32.{kept}"
    )
