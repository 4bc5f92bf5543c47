"""Searches side by side at equal compute: does evolution find more than random search, and more than the baselines?

    python -m experiments.benchmark search --searches workdir/random workdir/evolution --figure=docs/search.png

Each folder is one of `experiments.search`; what a search found after the core-hours of the shortest one does not count.
The candidates of the first one also give the shares that the checks and tests reject, and the histogram of accuracies.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.builders.study import open_study
from experiments.launch import session as sessions
from experiments.studies import runs
from tf_evonorm.search.study import report, results
from tf_evonorm.search.study.study import Record, Study

Timeline = list[tuple[float, Record]]  # as from `results.timeline`


def main(arguments: Sequence[str]) -> None:
    """Prints the tables and draws the figure."""
    parser = argparse.ArgumentParser(prog="experiments.benchmark search", description=__doc__.split("\n")[0])
    parser.add_argument("--searches", nargs="+", required=True, type=pathlib.Path, help="folders of searches")
    parser.add_argument("--figure", help="image file to draw, PNG or JPEG")
    options = parser.parse_args(arguments)
    folders = options.searches
    for folder in folders:
        if not (folder / "config.json").exists():
            parser.error(f"--searches must be folders of searches. Received {folder}, without config.json.")
    studies = [opened(folder) for folder in folders]
    lines = within_equal_compute([results.timeline(study) for study in studies])
    titles = [folder.name for folder in folders]
    print(text(titles, lines))
    print(f"\n{titles[0]}: {phases(lines[0])}\n")
    print(shares(lines[0]))
    for title, folder in zip(titles, folders):
        rows = results.read(str(folder / "rerank.json"), [])
        if rows:
            print(f"\n{reranked(title, studies[0].anchors, rows)}")
    if options.figure:
        draw(titles, lines, studies[0].anchors, results.baselines(str(folders[0])), options.figure)


def opened(folder: pathlib.Path) -> Study:
    """Returns the study in the folder of a search."""
    return open_study(sessions.recorded(str(folder)), str(folder))


def within_equal_compute(lines: Sequence[Timeline]) -> list[Timeline]:
    """Returns of each timeline what was done within the core-seconds of the shortest one."""
    end = min(line[-1][0] if line else 0.0 for line in lines)
    return [[(spent, record) for spent, record in line if spent <= end] for line in lines]


def own_scores(line: Timeline) -> list[tuple[float, tuple]]:
    """Returns (core-seconds, scores) of the candidates that passed, without those that took cached scores."""
    return [
        (spent, record.scores or ()) for spent, record in line if record.state == "passed" and record.cached is None
    ]


def proposed(line: Timeline) -> int:
    """Returns the number of proposed graphs, skipped ones included."""
    return len(line) + sum(sum(record.skipped.values()) for _, record in line)


def text(titles: Sequence[str], lines: Sequence[Timeline]) -> str:
    """Returns a Markdown table with a row for each search."""
    head = ["search", "core-hours", "graphs proposed", "tried", "per core-hour", "passed", "took cached scores"]
    rows = []
    for title, line in zip(titles, lines):
        hours = line[-1][0] / 3600 if line else 0.0
        tried = sum(record.cached is None for _, record in line)
        means = [np.mean(scores) for _, scores in own_scores(line)]
        best = [f"{max(means):.3f}", f"{np.mean(means[-10:]):.3f}"] if means else ["-", "-"]
        rate = f"{tried / hours if hours else 0:.0f}"
        rows.append([title, f"{hours:.2f}", proposed(line), tried, rate, len(means), len(line) - tried, *best])
    return runs.markdown([*head, "best mean accuracy", "mean of last 10"], rows)


def phases(line: Timeline) -> str:
    """Returns the shares of the core-seconds by phase; "proposing" is mutation, sampling and the database."""
    spent, total = results.seconds_by_phase(line), line[-1][0] if line else 1.0
    parts = ", ".join(f"{name} {100 * value / total:.1f} %" for name, value in spent.items())
    per_graph = " and ".join(
        f"{name} {1000 * spent.get(name, 0.0) / max(proposed(line), 1):.0f} ms" for name in ("checks", "proposing")
    )
    return f"{parts}; per proposed graph {per_graph}"


def shares(line: Timeline) -> str:
    """Returns a Markdown table of the fate of all proposed graphs, with the time that each check and test saved.

    A graph that a check skips saves the average time of a trial; one that a test rejects saves the difference between
    the time of a passed candidate and its own.
    """
    checks = sum((collections.Counter(record.skipped) for _, record in line), collections.Counter())
    spent = collections.defaultdict(list)
    for _, record in line:
        if record.cached is None:
            spent[record.reason or "passed"].append(results.trying(record))
    tests = {name: (len(values), float(np.mean(values))) for name, values in spent.items()}
    tried, took = sum(count for count, _ in tests.values()), sum(map(sum, spent.values()))
    full, cached = tests.get("passed", (0, 0.0))[1], sum(record.cached is not None for _, record in line)

    fates = [(f"check: {name}", count, "", count * took / max(tried, 1)) for name, count in checks.most_common()]
    fates.append(("check: computes the same as one that passed", cached, "", cached * full))
    for name, (count, seconds) in sorted(tests.items(), key=lambda item: -item[1][0]):
        fates.append((name, count, f"{seconds:.1f}", count * (full - seconds)))
    rows = [
        [name, count, f"{100 * count / proposed(line):.1f}", seconds, f"{saved / 3600:.2f}"]
        for name, count, seconds, saved in fates
    ]
    return runs.markdown(["fate", "graphs", "% of all proposed", "seconds each", "core-hours saved"], rows)


def reranked(title: str, anchors: Sequence[str], rows: Sequence[dict]) -> str:
    """Returns a Markdown table of accuracy in per cent, mean and standard deviation over seeds, best mean first."""
    lines = []
    for row in rows:
        accuracy = 100 * np.nan_to_num(np.array(row["accuracy"], float))  # diverged trainings count as 0
        cells = [runs.mean_and_deviation(column.tolist()) for column in accuracy.T]
        lines.append([row["name"], *cells, f"{accuracy.mean():.1f}"])
    return runs.markdown([title, *anchors, "mean"], lines)


def draw(titles: Sequence[str], lines: Sequence[Timeline], anchors: Sequence[str], baselines: dict, path: str) -> None:
    """Draws the best mean accuracy over core-hours for each search, and histograms of the first search by anchor."""
    with runs.figure(path, [5] + [2.6] * len(anchors), 3.6) as (curves, *panels):
        for number, (title, line) in enumerate(zip(titles, lines)):
            scored = own_scores(line)
            hours = [spent / 3600 for spent, _ in scored]
            means = [np.mean(scores) for _, scores in scored]
            curves.plot(hours, means, ".", color=f"C{number}", alpha=0.4)
            best = np.maximum.accumulate(means) if means else []
            curves.step(hours, best, color=f"C{number}", where="post", label=title)
        curves.set(xlabel="core-hours", ylabel="accuracy, mean of the anchors")
        for number, (name, scores) in enumerate(baselines.items()):
            curves.axhline(np.mean(scores), color=f"C{number + 2}", linestyle=":", label=name)
        report.histograms(panels, anchors, [scores for _, scores in own_scores(lines[0])], baselines)
        panels[0].set_title(f"candidates of {titles[0]}", fontsize=9)
        curves.legend(fontsize=8)
