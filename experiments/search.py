"""Searches normalization-activation layers with many workers; reports, retrains and exports what was found.

python -m experiments.search --config=experiments/configs/search/evonorm_b_small.py --config.source.path=cifar10.zip \\
  --workdir=workdir/search --workers=2

Workers are processes that Dask starts on this machine, or those of a running Dask cluster with --scheduler=ADDRESS.
Other machines also join with the same command, where --config.study.url names a database server. Any process may be
killed at any time; the same command resumes the search.
"""

from __future__ import annotations

import os
import time
from typing import Any, Optional

from absl import flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from experiments.builders import study as builder
from experiments.launch import session as sessions
from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.study import archive, cluster, report, results
from tf_evonorm.search.study.study import Study

MODES = ("search", "report", "rerank", "export", "dump", "restore")
ARCHIVE = "study.json"  # what dump writes into the folder, and restore reads


def main(
    session: sessions.Session,
    workers: int = 1,
    scheduler: Optional[str] = None,
    memory_limit: str = "auto",
    file: Optional[str] = None,
) -> None:
    """Runs one mode of an experiment.

    The sections of its config are the keyword arguments of: source, test: `data.source` (test: what differs from
    source); images: `split`; anchors: `anchors`; training: `Training`; layer: `GraphLayer`, whose epsilons and sign of
    zero are also the protections of the checks; precheck: of `Candidate`; quality, stability: `Quality`, `Stability`,
    or None; curve: `LearningCurve` or None; space, rules: `Space`, `Rules`; checks: `Checks`; study: `Study`; rerank:
    `results.rerank`, its `training` what differs from training.

    Args:
      session: `mode` is "search" (workers with a progress line, then the report), "report", "rerank" (the best layers
        retrained on images that the search has not seen), "export" (the winner as JSON and as a SavedModel), "dump"
        (all candidates as one JSON file) or "restore" (the study from such a file).
      workers: number of processes on this machine, one core each.
      scheduler: address of a Dask scheduler whose workers are used in their place.
      memory_limit: of each process on this machine, such as "4GB"; "auto" divides that of the machine.
      file: JSON file of "dump" and "restore"; `study.json` in the folder by default.
    """
    config, folder = session.config, session.workdir
    study = builder.open_study(config, folder)
    if session.mode in ("dump", "restore"):
        path = file or os.path.join(folder, ARCHIVE)
        count = (archive.dump if session.mode == "dump" else archive.restore)(study, path)
        print(f"{path}: {count} candidates")
        return
    if session.mode == "search":
        if not scheduler:
            _check_workers(workers)
        images = builder.images(config, folder)  # decoded once, before all workers need them
        with cluster.connected(workers, scheduler, memory_limit, folder) as client:
            _search(study, config, folder, client)
        results.train_baselines(builder.candidate(config, images), folder)
    if session.mode in ("rerank", "export"):
        longer = builder.candidate(config, builder.images(config, folder, rerank=True), dict(config.rerank.training))
        if session.mode == "export":
            print(results.export(study, longer, folder))
            return
        settings = {key: value for key, value in config.rerank.items() if key != "training"}
        sessions.build(results.rerank, "rerank", settings, search=study, candidate=longer, folder=folder)
    print(report.report(study, folder))


def _search(study: Study, config: ConfigDict, folder: str, client: Any) -> None:
    """Keeps all workers of a cluster at work, with a progress line, until the study is complete."""
    started, before = time.time(), len(results.finished(study))
    print(cluster.described(client))

    def update() -> int:
        finished = len(results.finished(study))
        bar.n = finished
        bar.set_postfix_str(results.progress(study, 3600 * (finished - before) / (time.time() - started)))
        return finished

    with tqdm(total=study.candidates, bar_format="{n}/{total} |{bar:20}| {elapsed} {postfix}") as bar:
        cluster.keep_working(client, builder.work_on, (config.to_dict(), os.path.abspath(folder)), update)


def _check_workers(workers: int) -> None:
    bound = hasattr(os, "sched_getaffinity")  # on Linux alone
    cores = len(os.sched_getaffinity(0)) if bound else os.cpu_count() or 1
    if not 1 <= workers <= cores:
        raise Mistake(f"--workers must be 1 to {cores}, the cores of this machine. Received --workers={workers}.")


def _check_input(config: Any, folder: str, mode: str, file: Optional[str]) -> None:
    """Raises Mistake if there is nothing that the mode could read, before anything is written."""
    reads = mode in ("report", "rerank", "export", "dump") and not config.study.get("url")
    if reads and not os.path.exists(f"{folder}/{builder.DATABASE}"):
        raise Mistake(f"--workdir must be the folder of a search. Received {folder!r}, without {builder.DATABASE}.")
    archived = file or f"{folder}/{ARCHIVE}"
    if mode == "restore" and not os.path.isfile(archived):
        raise Mistake(f"--mode=restore reads a file of --mode=dump. Received {archived}, which is not there.")


def _run() -> None:
    config = config_flags.DEFINE_config_file("config", help_string="FILE.py or FILE.py:VARIANT.")
    flags.DEFINE_string(
        "workdir", None, "Folder of the search: database, images, report. An existing search is resumed."
    )
    flags.DEFINE_enum("mode", "search", MODES, "What to do.")
    flags.DEFINE_integer("workers", 1, "Processes of --mode=search on this machine, one core each.")
    flags.DEFINE_string(
        "scheduler", None, "Address of a Dask scheduler whose workers are used, such as tcp://HOST:8786."
    )
    flags.DEFINE_string("memory_limit", "auto", "Memory of each process on this machine, such as 4GB.")
    flags.DEFINE_string("file", None, f"JSON file of --mode=dump and --mode=restore; WORKDIR/{ARCHIVE} by default.")
    flags.mark_flags_as_required(["config", "workdir"])

    def start(_: list[str]) -> None:
        mode, folder = flags.FLAGS.mode, flags.FLAGS.workdir
        _check_input(config.value, folder, mode, flags.FLAGS.file)
        with sessions.start_session(config.value, folder, mode, program="search") as session:
            given = flags.FLAGS
            main(session, given.workers, given.scheduler, given.memory_limit, given.file)

    sessions.run(start)


if __name__ == "__main__":
    _run()
