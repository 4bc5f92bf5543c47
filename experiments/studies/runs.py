"""The runner of all studies: the cells of a grid, each run once and stored as JSON; Markdown tables; figures."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import pathlib
import re
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable, Optional

import tensorflow as tf

from tf_evonorm.atomic import whole


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs of a study in one folder: a result for each row, column and seed of a grid.

    Attributes:
      folder: folder of the study.
      pattern: path of the JSON file of a result below it, with {row}, {column} and {seed}.
    """

    folder: pathlib.Path
    pattern: str

    def path(self, row: str, column: Any, seed: Any) -> pathlib.Path:
        """Returns the file of a result."""
        return self.folder / self.pattern.format(row=row, column=column, seed=seed)

    def run(
        self,
        measure: Callable[[str, Any, int], Any],
        rows: Iterable[str],
        seeds: Iterable[int],
        columns: Collection[Any] = ("",),
    ) -> None:
        """Measures the cells that have no result yet, and stores each result as soon as it is there.

        A run that diverges (FloatingPointError) is reported; it and the later columns of its row and seed get none.

        Args:
          measure: (row, column, seed) -> result, anything that JSON can hold.
          rows, seeds, columns: those to measure now; several processes may share a study.
        """
        for seed in seeds:
            for row in rows:
                try:
                    for column in columns:
                        self._once(measure, row, column, seed)
                except FloatingPointError as error:
                    print(error)

    def _once(self, measure: Callable[[str, Any, int], Any], row: str, column: Any, seed: int) -> None:
        path = self.path(row, column, seed)
        if path.exists():
            return
        print(", ".join(filter(None, [row, str(column), f"seed {seed}"])), flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        result = measure(row, column, seed)
        with whole(path) as partial:
            pathlib.Path(partial).write_text(json.dumps(result, indent=1))
        tf.keras.backend.clear_session()
        gc.collect()

    def results(self, rows: Iterable[str], columns: Collection[Any] = ("",)) -> dict[tuple[str, Any], list]:
        """Returns (row, column) -> the results of all seeds that are done, in the order of the seeds."""
        found = {}
        for row in rows:
            for column in columns:
                files = {seed: path for seed, path in self._files(row, column)}
                if files:
                    found[row, column] = [json.loads(files[seed].read_text()) for seed in sorted(files)]
        return found

    def _files(self, row: str, column: Any) -> Iterator[tuple[int, pathlib.Path]]:
        seed = re.compile(re.escape(str(self.path(row, column, "SEED"))).replace("SEED", r"(\d+)"))
        for path in self.folder.glob(self.pattern.format(row=row, column=column, seed="*")):
            match = seed.fullmatch(str(path))
            if match:
                yield int(match[1]), path


def parser(name: str, description: Optional[str], **choices: tuple[str, Sequence[str]]) -> argparse.ArgumentParser:
    """Returns the command line of a study: --workdir, --seeds, --figure, and a flag for each kind of choice.

    Args:
      name: name of the study for `experiments.benchmark`.
      description: docstring of the study, of which the first line is shown.
      **choices: flag -> values that may be given; all of them by default.
    """
    made = argparse.ArgumentParser(
        prog=f"experiments.benchmark {name}", description=(description or "").partition("\n")[0]
    )
    made.add_argument("--workdir", required=True, type=pathlib.Path, help="folder of the runs")
    made.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="those to run now")
    made.add_argument("--figure", help="image file to draw, PNG or JPEG")
    for flag, values in choices.items():
        made.add_argument(f"--{flag}", nargs="*", default=list(values), choices=list(values), help="those to run now")
    return made


def mean_and_deviation(values: Sequence[float], digits: int = 1) -> str:
    """Prints mean and standard deviation; the mean alone for one value, "-" for none."""
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def percent(values: Iterable[float]) -> list[float]:
    """Returns shares as per cent."""
    return [100 * value for value in values]


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def grid(corner: str, rows: Mapping[str, str], columns: Mapping[Any, str], results: Mapping[tuple, list]) -> str:
    """Returns a Markdown table of mean and standard deviation over the seeds, in per cent.

    Args:
      corner: title of the column of titles.
      rows, columns: name -> title.
      results: as from `Runs.results`, shares.
    """
    lines = [
        [title, *(mean_and_deviation(percent(results.get((row, column), []))) for column in columns)]
        for row, title in rows.items()
    ]
    return markdown([corner, *columns.values()], lines)


@contextlib.contextmanager
def figure(path: str, widths: Sequence[float], height: float, **settings: Any) -> Iterator[Sequence[Any]]:
    """Yields the panels of a figure, and writes it to a file at the end.

    Args:
      path: file to write, PNG or JPEG.
      widths: width of each panel, in inches.
      height: height of the figure, in inches.
      **settings: of Matplotlib's `Figure.subplots`.
    """
    from matplotlib.figure import Figure  # imported only where a figure is drawn

    drawn = Figure(figsize=(sum(widths), height), dpi=110)
    panels = drawn.subplots(1, len(widths), width_ratios=list(widths), squeeze=False, **settings)[0]
    yield panels
    drawn.tight_layout()
    drawn.savefig(path)
