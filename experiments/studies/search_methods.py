"""Searches side by side, at equal compute: does evolution find more than random search, and anything better than the known layers?

    python -m experiments.benchmark search --searches workdir/random workdir/evolution --figure=docs/search.png

Each folder is one of `experiments.search`; what a search found after the core-hours of the shortest one does not count. The first one's
candidates also give the shares that the checks and tests reject, and the histogram of accuracies.
"""

from __future__ import annotations

import argparse
import collections
import pathlib

import numpy as np

from experiments.builders.study import open_study
from experiments.launch import session as sessions
from tf_evonorm.search.study import report, results


def main(arguments):
    parser = argparse.ArgumentParser(prog="experiments.benchmark search", description=__doc__.split("\n")[0])
    parser.add_argument("--searches", nargs="+", required=True, help="folders of searches")
    parser.add_argument("--figure", help="PNG to be drawn")
    options = parser.parse_args(arguments)
    folders = [pathlib.Path(folder) for folder in options.searches]
    for folder in folders:
        if not (folder / "config.json").exists():
            parser.error(f"--searches must be folders of searches. Received {folder}, without config.json.")
    studies = [opened(folder) for folder in folders]
    lines = within_equal_compute([results.timeline(study) for study in studies])
    known = results.baselines(str(folders[0]))
    titles = [folder.name for folder in folders]
    print(text(titles, lines))
    print()
    print(f"{titles[0]}: {phases(lines[0])}\n")
    print(shares(lines[0]))
    for title, folder in zip(titles, folders):
        rows = results.read(str(folder / "rerank.json"), [])
        if rows:
            print(f"\n{reranked(title, studies[0].anchors, rows)}")
    if options.figure:
        draw(titles, lines, studies[0].anchors, known, options.figure)


def opened(folder: pathlib.Path):
    """The study in a folder of a search."""
    return open_study(sessions.recorded(str(folder)), str(folder))


def within_equal_compute(lines: list) -> list:
    """Of each timeline what was done within the core-seconds of the shortest."""
    end = min(line[-1][0] if line else 0.0 for line in lines)
    return [[(spent, record) for spent, record in line if spent <= end] for line in lines]


def own_scores(line: list) -> list:
    """(core-seconds, scores) of the candidates that passed, without those that took the scores of others."""
    return [(spent, record.scores) for spent, record in line if record.state == "passed" and record.cached is None]


def text(titles: list, lines: list) -> str:
    """Markdown: a row for each search."""
    rows = [
        "| search | core-hours | graphs drawn | tried | per core-hour | passed | took scores | best mean accuracy | mean of last 10 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for title, line in zip(titles, lines):
        hours = line[-1][0] / 3600 if line else 0.0
        tried = sum(record.cached is None for _, record in line)
        drawn = len(line) + sum(sum(record.skipped.values()) for _, record in line)
        means = [np.mean(scores) for _, scores in own_scores(line)]
        best = f"{max(means):.3f} | {np.mean(means[-10:]):.3f}" if means else "- | -"
        cells = f"{hours:.2f} | {drawn} | {tried} | {tried / hours if hours else 0:.0f} | {len(means)} | {len(line) - tried}"
        rows.append(f"| {title} | {cells} | {best} |")
    return "\n".join(rows)


def phases(line: list) -> str:
    """Where the core-seconds went, in per cent; what is left is proposing: parents, mutations, the database."""
    spent, total = results.seconds_by_phase(line), line[-1][0] if line else 1.0
    drawn = len(line) + sum(sum(record.skipped.values()) for _, record in line)
    shares = ", ".join(f"{name} {100 * value / total:.1f} %" for name, value in spent.items())
    per_graph = [f"{name} {1000 * spent.get(name, 0.0) / max(drawn, 1):.0f} ms" for name in ("checks", "proposing")]
    return f"{shares}; per proposed graph {' and '.join(per_graph)}"


def shares(line: list) -> str:
    """Markdown: what became of all graphs that were drawn, checks before tests; what each took and what it saved.

    A graph that a check passes over saves what a tried one takes on average, one that falls in a test what a passed one takes and it did
    not.
    """
    checks = sum((collections.Counter(record.skipped) for _, record in line), collections.Counter())
    spent = collections.defaultdict(list)
    for _, record in line:
        if record.cached is None:
            spent[record.reason or "passed"].append(results.trying(record))
    tests = {name: (len(values), np.mean(values)) for name, values in spent.items()}
    tried, took = sum(count for count, _ in tests.values()), sum(map(sum, spent.values()))
    full = tests.get("passed", (0, 0.0))[1]
    total = sum(checks.values()) + len(line)
    rows = ["| fate | graphs | % of all drawn | seconds each | core-hours saved |", "|---|---|---|---|---|"]

    def row(name, count, seconds, saved):
        rows.append(f"| {name} | {count} | {100 * count / total:.1f} | {seconds} | {saved / 3600:.2f} |")

    for name, count in checks.most_common():
        row(f"check: {name}", count, "", count * took / max(tried, 1))
    row("check: computes the same as one that passed", len(line) - tried, "", (len(line) - tried) * full)
    for name, (count, seconds) in sorted(tests.items(), key=lambda item: -item[1][0]):
        row(name, count, f"{seconds:.1f}", count * (full - seconds))
    return "\n".join(rows)


def reranked(title: str, anchors: tuple, rows: list) -> str:
    """Markdown: accuracy in per cent, mean and standard deviation over seeds, best mean first."""
    table = [f"| {title} | " + " | ".join(anchors) + " | mean |", "|---" * (len(anchors) + 2) + "|"]
    for row in rows:
        mean, spread = results.over_seeds(row)
        cells = " | ".join(f"{100 * m:.1f} ± {100 * s:.1f}" for m, s in zip(mean, spread))
        table.append(f"| {row['name']} | {cells} | {100 * mean.mean():.1f} |")
    return "\n".join(table)


def draw(titles: list, lines: list, anchors: tuple, known: dict, path: str):
    """Best mean accuracy over core-hours, a line for each search; beside it a histogram of the first search for each anchor."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (curves, *panels) = pyplot.subplots(
        1, 1 + len(anchors), figsize=(5 + 2.6 * len(anchors), 3.6), dpi=110, width_ratios=[1.8] + [1] * len(anchors)
    )
    for number, (title, line) in enumerate(zip(titles, lines)):
        scored = own_scores(line)
        hours = [spent / 3600 for spent, _ in scored]
        means = [np.mean(scores) for _, scores in scored]
        curves.plot(hours, means, ".", color=f"C{number}", alpha=0.4)
        best = np.maximum.accumulate(means) if means else []
        curves.step(hours, best, color=f"C{number}", where="post", label=title)
    curves.set(xlabel="core-hours", ylabel="accuracy, mean of the anchors")
    for number, (name, scores) in enumerate(known.items()):
        curves.axhline(np.mean(scores), color=f"C{number + 2}", linestyle=":", label=name)
    report.histograms(panels, anchors, [scores for _, scores in own_scores(lines[0])], known)
    panels[0].set_title(f"candidates of {titles[0]}", fontsize=9)
    curves.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
