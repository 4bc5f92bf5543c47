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
from absl import logging
from ml_collections import ConfigDict

from experiments.builders.run import Run
from experiments.launch import session as sessions
from tf_evonorm.atomic import atomic_path

Results = dict[tuple[str, Any], list]  # (row, column) -> the results of the seeds


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
        with atomic_path(path) as partial:
            pathlib.Path(partial).write_text(json.dumps(result, indent=1))
        _release_memory()

    def results(self, rows: Iterable[str], columns: Collection[Any] = ("",)) -> Results:
        """Returns (row, column) -> the results of all seeds that are done, in the order of the seeds."""
        found = {}
        for row in rows:
            for column in columns:
                files = {seed: path for seed, path in self._files(row, column)}
                if files:
                    found[row, column] = [json.loads(files[seed].read_text()) for seed in sorted(files)]
        return found

    def _files(self, row: str, column: Any) -> Iterator[tuple[int, pathlib.Path]]:
        seed = re.compile(re.escape(str(self.path(row, column, "@seed@"))).replace("@seed@", r"(\d+)"))
        for path in self.folder.glob(self.pattern.format(row=row, column=column, seed="*")):
            match = seed.fullmatch(str(path))
            if match:
                yield int(match[1]), path


def write(results: Results, path: pathlib.Path) -> None:
    """Writes all results as one JSON file, a line for each row and column."""
    lines = [json.dumps([row, column, cells]) for (row, column), cells in results.items()]
    with atomic_path(path) as partial:
        pathlib.Path(partial).write_text("[\n" + ",\n".join(lines) + "\n]\n")


def read(path: pathlib.Path) -> Results:
    """Returns the results of a file that `write` has written."""
    return {(row, column): cells for row, column, cells in json.loads(path.read_text())}


def unpack(results: Results, study: Runs) -> None:
    """Stores results of the seeds 0, 1, ... in the folder of a study, where it has none."""
    for (row, column), cells in results.items():
        for seed, cell in enumerate(cells):
            path = study.path(row, column, seed)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as partial:
                    pathlib.Path(partial).write_text(json.dumps(cell))


def train(
    experiment: Callable[[sessions.Session], Run],
    config: ConfigDict,
    folder: pathlib.Path,
    seed: int,
    mode: str = "train_and_eval",
) -> dict:
    """Runs one experiment in this process.

    Args:
      experiment: of a builder, session -> `Run`.
      config: of the experiment; its seed is set.
      folder: folder of the run; an interrupted run in it is resumed.
      seed: of the run.
      mode: as in `Session`.

    Returns:
      The results of its last evaluation.
    """
    config.seed = seed
    logging.use_absl_handler()  # shows warnings only; the rest goes to the log of the run
    try:
        with sessions.start_session(config, str(folder), mode) as session:
            _, results = experiment(session).start()
    finally:
        _release_memory()
    return results


def _release_memory() -> None:
    tf.keras.backend.clear_session()
    gc.collect()


def parser(name: str, description: Optional[str], **choices: Sequence[str]) -> argparse.ArgumentParser:
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


def statistics_of(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and standard deviation, which is 0 for one value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def mean_and_deviation(values: Sequence[float], digits: int = 1) -> str:
    """Prints mean and standard deviation; the mean alone for one value, "-" for none."""
    if not values:
        return "-"
    mean, deviation = statistics_of(values)
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if len(values) > 1 else "")


def percent(values: Iterable[float]) -> list[float]:
    """Returns shares as per cent."""
    return [100 * value for value in values]


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def grid(corner: str, rows: Mapping[str, str], columns: Mapping[Any, str], results: Results) -> str:
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
