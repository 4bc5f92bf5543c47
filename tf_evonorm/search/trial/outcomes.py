"""The outcome of one candidate's trial."""

from __future__ import annotations

from typing import NamedTuple, Optional


class Outcome(NamedTuple):
    """What came of a candidate: scores, or why it has none; numbers and seconds by name."""

    scores: Optional[tuple]
    rejected: str = ""
    numbers: dict = {}  # noqa: RUF012 never written to
    seconds: dict = {}  # noqa: RUF012
