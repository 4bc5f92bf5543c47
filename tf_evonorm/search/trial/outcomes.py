"""The outcome of one candidate's trial."""

from __future__ import annotations

from typing import NamedTuple, Optional


class Outcome(NamedTuple):
    """The outcome of a trial.

    Attributes:
      scores: one per anchor, or None if the candidate was rejected or failed.
      rejected: the reason, or "".
      numbers: what was measured, by name.
      seconds: duration of each phase, by name.
    """

    scores: Optional[tuple]
    rejected: str = ""
    numbers: dict = {}  # noqa: RUF012 never modified
    seconds: dict = {}  # noqa: RUF012
