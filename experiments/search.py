"""Searches normalization-activation layers with many workers; reports, retrains and exports what was found.

python -m experiments.search --config=experiments/configs/search/evonorm_b_small.py --config.source.path=cifar10.zip \\
  --workdir=workdir/search --workers=2

Other machines join with the same command, where --config.study.url names a database server. Any process may be killed
at any time; the same command resumes the search.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import Any, Optional

import tensorflow as tf
from absl import flags
from ml_collections import config_flags
from tqdm import tqdm

from experiments.builders import study as builder
from experiments.launch import session as sessions
from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.study import archive, report, results
from tf_evonorm.search.study.study import Study
from tf_evonorm.search.study.workers import RESTART, keep_workers, work

MODES = ("search", "worker", "report", "rerank", "export", "dump", "restore")
ARCHIVE = "study.json"  # what dump writes into the folder, and restore reads


def main(session: sessions.Session, workers: int = 1, parent: Optional[int] = None, file: Optional[str] = None) -> None:
    """Runs one mode of an experiment.

    The sections of its config are the keyword arguments of: source, test: `data.source` (test: what differs from
    source); images: `split`; anchors: `anchors`; training: `Training`; layer: `GraphLayer`, whose epsilons and sign of
    zero are also the protections of the checks; precheck: of `Candidate`; quality, stability: `Quality`, `Stability`,
    or None; curve: `LearningCurve` or None; space, rules: `Space`, `Rules`; checks: `Checks`; study: `Study`; rerank:
    `results.rerank`, its `training` what differs from training.

    Args:
      session: `mode` is "search" (workers with a progress line, then the report), "worker" (one, in this process),
        "report", "rerank" (the best layers retrained on images that the search has not seen), "export" (the winner as
        JSON and as a SavedModel), "dump" (all candidates as one JSON file) or "restore" (the study from such a file).
      workers: number of worker processes, one core each.
      parent: process id whose end also ends this worker.
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
        images = builder.images(config, folder)  # decoded once, before all workers need them
        _search(study, workers, folder)
        results.train_baselines(builder.candidate(config, images), folder)
    if session.mode == "worker":
        _work(study, config, folder, parent)
    if session.mode in ("rerank", "export"):
        longer = builder.candidate(config, builder.images(config, folder, rerank=True), dict(config.rerank.training))
        if session.mode == "export":
            print(results.export(study, longer, folder))
            return
        settings = {key: value for key, value in config.rerank.items() if key != "training"}
        sessions.build(results.rerank, "rerank", settings, search=study, candidate=longer, folder=folder)
    print(report.report(study, folder))


def _search(study: Study, workers: int, folder: str) -> None:
    """Runs worker processes, one core each, with a progress line, until the study is complete."""
    bound = hasattr(os, "sched_getaffinity")  # on Linux alone
    cores = sorted(os.sched_getaffinity(0)) if bound else list(range(os.cpu_count() or 1))
    if not 1 <= workers <= len(cores):
        raise Mistake(f"--workers must be 1 to {len(cores)}, the cores of this machine. Received --workers={workers}.")
    started, before = time.time(), len(results.finished(study))

    def update() -> None:
        finished = len(results.finished(study))
        bar.n = finished
        bar.set_postfix_str(results.progress(study, 3600 * (finished - before) / (time.time() - started)))

    with tqdm(total=study.candidates, bar_format="{n}/{total} |{bar:20}| {elapsed} {postfix}") as bar:
        keep_workers(_worker_command, cores[:workers], folder, update)


def _worker_command(core: int) -> list[str]:
    """Returns the command of a worker: this process's flags but for those of the mode."""
    replaced = ("mode", "core", "parent", "workers")
    kept = [flag for flag in sys.argv[1:] if not flag.lstrip("-").startswith(replaced)]
    mode = ["--mode=worker", f"--core={core}", f"--parent={os.getpid()}"]
    return [sys.executable, "-m", "experiments.search", *kept, *mode]


def _work(study: Study, config: Any, folder: str, parent: Optional[int]) -> None:
    """Works on the study in this process, then ends it."""
    trial = builder.candidate(config, builder.images(config, folder))
    gc.freeze()  # the libraries are never collected; scanning them after each candidate took 5 % of the time

    def orphaned() -> bool:
        return parent is not None and os.getppid() != parent

    sys.exit(0 if work(study, trial, config.restart_after, orphaned) else RESTART)


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
    flags.DEFINE_integer("workers", 1, "Processes of --mode=search, one core each.")
    flags.DEFINE_integer("core", None, "For --mode=worker: the core that it uses.")
    flags.DEFINE_integer("parent", None, "For --mode=worker: the process whose end also ends it.")
    flags.DEFINE_string("file", None, f"JSON file of --mode=dump and --mode=restore; WORKDIR/{ARCHIVE} by default.")
    flags.mark_flags_as_required(["config", "workdir"])

    def start(_: list[str]) -> None:
        if flags.FLAGS.core is not None:
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        mode, folder = flags.FLAGS.mode, flags.FLAGS.workdir
        _check_input(config.value, folder, mode, flags.FLAGS.file)
        with sessions.start_session(config.value, folder, mode, program="search") as session:
            main(session, flags.FLAGS.workers, flags.FLAGS.parent, flags.FLAGS.file)

    sessions.run(start)


if __name__ == "__main__":
    _run()
