"""Calibrates the rejection by learning curves: limits of the training loss, and how many good layers they would lose.

    python -m experiments.benchmark curves --searches workdir/random workdir/evolution --steps 20 40 80

Each folder is one of `experiments.search` without a `curve` section, whose candidates have their training losses in
the study. Half of the candidates set the limits, so that none of those that passed all tests is lost; the other half
shows how many are. The printed section goes into a config with the same training and anchors.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.studies import runs
from experiments.studies.search_methods import opened
from tf_evonorm.search.study import results
from tf_evonorm.search.study.study import Record
from tf_evonorm.search.trial.rejection import WINDOW, LearningCurve

WANTED = 1000  # candidates with curves, below which limits are a guess


class Share(NamedTuple):
    """What limits do to candidates that they were not made from.

    Attributes:
      passed: candidates that passed all tests.
      lost: those of them that the limits reject.
      failed: candidates that were trained to the first step or longer and did not pass.
      caught: those of them that the limits reject.
      saved: steps that were trained and would not be, over all steps that were trained.
    """

    passed: int
    lost: int
    failed: int
    caught: int
    saved: float


def main(arguments: Sequence[str]) -> None:
    """Prints the section of a config, and what it would do to the other half of the candidates."""
    parser = argparse.ArgumentParser(prog="experiments.benchmark curves", description=__doc__.split("\n")[0])
    parser.add_argument("--searches", nargs="+", required=True, type=pathlib.Path, help="folders of searches")
    parser.add_argument("--steps", nargs="+", type=int, default=[20, 40, 80], help=f"multiples of {WINDOW}, ascending")
    parser.add_argument("--margin", type=float, default=0.0, help="added to each limit")
    options = parser.parse_args(arguments)
    if any(step % WINDOW or step < WINDOW for step in options.steps) or options.steps != sorted(set(options.steps)):
        parser.error(f"--steps must be multiples of {WINDOW} and ascend. Received {options.steps}.")
    for folder in options.searches:
        if not (folder / "config.json").exists():
            parser.error(f"--searches must be folders of searches. Received {folder}, without config.json.")
    records = [record for folder in options.searches for record in curves(results.finished(opened(folder)))]
    first, second = halves(records)
    if not any(record.state == "passed" for record in first):
        parser.error(f"candidates that passed are needed. Received {len(records)} with curves, and none in one half.")
    found = calibrated(first, options.steps, options.margin)
    print(f"config.curve = {{'steps': {found.steps}, 'limits': {found.limits}}}\n")
    print(text(found, first, second))
    if len(records) < WANTED:
        print(f"\nOnly {len(records)} candidates: limits want {WANTED} or more.")


def curves(records: Sequence[Record]) -> list[Record]:
    """Returns the candidates whose training losses are known, but for those that a crash ended."""
    return [record for record in records if losses(record) and record.state != "failed"]


def losses(record: Record) -> dict[str, list[float]]:
    """Returns anchor -> mean training loss of every `WINDOW` steps."""
    end = " losses"
    return {name.removesuffix(end): values for name, values in record.numbers.items() if name.endswith(end)}


def halves(records: Sequence[Record], seed: int = 0) -> tuple[list[Record], list[Record]]:
    """Splits candidates at random, those that passed and the others by themselves."""
    rng = np.random.default_rng(seed)
    parts: tuple[list[Record], list[Record]] = ([], [])
    for passed in (True, False):
        kind = [record for record in records if (record.state == "passed") == passed]
        for number, index in enumerate(rng.permutation(len(kind))):
            parts[number % 2].append(kind[index])
    return parts


def calibrated(records: Sequence[Record], steps: Sequence[int], margin: float = 0.0) -> LearningCurve:
    """Returns the lowest limits that reject none of the candidates that passed.

    Args:
      records: candidates with curves.
      steps: multiples of `WINDOW`, ascending.
      margin: added to each limit.
    """
    passed = [losses(record) for record in records if record.state == "passed"]
    limits = {
        anchor: tuple(round(max(curve[anchor][step // WINDOW - 1] for curve in passed) + margin, 4) for step in steps)
        for anchor in passed[0]
    }
    return LearningCurve(tuple(steps), limits)


def stop(curve: LearningCurve, record: Record) -> tuple[str, int] | None:
    """Returns (anchor, step) at which the limits reject a candidate, or None."""
    for anchor, values in losses(record).items():
        for step, limit in zip(curve.steps, curve.limits.get(anchor, ())):
            if len(values) >= step // WINDOW and not values[step // WINDOW - 1] <= limit:
                return anchor, step
    return None


def share(curve: LearningCurve, records: Sequence[Record]) -> Share:
    """Returns what limits do to candidates; those that ended before the first step are left out."""
    passed, lost, failed, caught, trained, saved = 0, 0, 0, 0, 0, 0
    for record in records:
        known = losses(record)
        if record.state != "passed" and max(map(len, known.values())) < curve.steps[0] // WINDOW:
            continue
        stopped = stop(curve, record)
        trained += WINDOW * sum(map(len, known.values()))
        if stopped:
            anchors = list(known)
            later = anchors[anchors.index(stopped[0]) + 1 :]
            saved += WINDOW * (len(known[stopped[0]]) + sum(len(known[name]) for name in later)) - stopped[1]
        if record.state == "passed":
            passed, lost = passed + 1, lost + bool(stopped)
        else:
            failed, caught = failed + 1, caught + bool(stopped)
    return Share(passed, lost, failed, caught, saved / trained if trained else 0.0)


def text(curve: LearningCurve, first: Sequence[Record], second: Sequence[Record]) -> str:
    """Returns a Markdown table: what the limits do to the half that made them, and to the other one."""
    rows = []
    for title, records in (("calibration", first), ("held out", second)):
        found = share(curve, records)
        rows.append([
            title,
            found.passed,
            f"{found.lost} ({100 * found.lost / max(found.passed, 1):.1f} %)",
            found.failed,
            f"{found.caught} ({100 * found.caught / max(found.failed, 1):.1f} %)",
            f"{100 * found.saved:.1f} %",
        ])  # fmt: skip
    return runs.markdown(["half", "passed", "of which lost", "failed", "of which rejected early", "steps saved"], rows)
