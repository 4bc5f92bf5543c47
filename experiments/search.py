"""Searches normalization-activation layers: a study in a database, workers on this machine or many, report, re-ranking, the layer as a file.

python -m experiments.search --config=experiments/configs/search/evonorm_b_small.py --config.source.path=cifar10.zip --workdir=workdir/search --workers=2

A second machine joins with the same command, where --config.study.url names a database server. Anything may be killed at any time; the
same command goes on.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import subprocess
import sys
import time
from typing import Optional

import numpy as np
import tensorflow as tf
from absl import flags
from ml_collections import config_flags
from tqdm import tqdm

from experiments.launch import session as sessions
from tf_evonorm.search.space.checks import Checks
from tf_evonorm.search.space.graph import Space
from tf_evonorm.search.space.primitives import Protection
from tf_evonorm.search.study import report, results, study
from tf_evonorm.search.study.evolution import Rules
from tf_evonorm.search.trial import proxy_task
from tf_evonorm.search.trial.candidate import Candidate
from tf_evonorm.search.trial.rejection import Quality, Stability
from tf_pixpro import data

MODES = ("search", "worker", "report", "rerank", "export")
DATABASE = "study.db"
AGAIN = 75  # exit code of a worker that wants a fresh process
_DEATHS = 5  # of one worker in a row, before the search gives up


def main(session: sessions.Session, workers: int = 1, parent: Optional[int] = None):
    """Runs one mode of an experiment.

    The sections of its config are the keyword arguments of: source, test: `data.source` (test: what changes of it); images: `split`;
    anchors: `anchors`; training: `proxy.Training`; layer: `GraphLayer`, of which epsilons and sign of zero also are the protections of the
    checks; quality, stability: `rejection.Quality`, `rejection.Stability`, or None; space, rules: `Space`, `Rules`; checks: `Checks`;
    study: `study.Study`; rerank: `search_results.rerank`, its `training` what changes of training.

    Args:
      session: `mode` is "search" (workers, a progress line, then the report), "worker" (one, in this process), "report", "rerank" (the
        best ones trained longer on images that the search has not seen) or "export" (the winner as JSON and as a SavedModel).
      workers: processes, one core each.
      parent: id of the process with which this worker ends.
    """
    config, folder = session.config, session.workdir
    search = open_study(config, folder)
    if session.mode == "search":
        images = images_in(config, folder)  # once, before all workers want them
        crew(search, workers, folder)
        results.known(candidate(config, folder, images), folder)
    if session.mode == "worker":
        trial = candidate(config, folder, images_in(config, folder))
        gc.freeze()  # the libraries stay; to look through them for garbage after each candidate took a twentieth of the time
        done = study.work(
            search,
            trial,
            config.restart_after,
            stop=lambda: parent is not None and os.getppid() != parent,
        )
        sys.exit(0 if done else AGAIN)
    if session.mode in ("rerank", "export"):
        longer = candidate(config, folder, images_in(config, folder, rerank=True), dict(config.rerank.training))
        if session.mode == "rerank":
            settings = {key: value for key, value in config.rerank.items() if key != "training"}
            sessions.build(results.rerank, "rerank", settings, search=search, candidate=longer, folder=folder)
        else:
            print(results.export(search, longer, folder))
            return
    print(report.report(search, folder))


def open_study(config, folder: str) -> study.Study:
    """The study of a config; its database is a file in the folder unless config.study.url names another."""
    build = sessions.build
    settings = {**config.study, "url": config.study.get("url") or f"sqlite:///{folder}/{DATABASE}"}
    space = build(Space, "space", config.space)
    parts = ("source", "images", "anchors", "training", "layer", "quality", "stability", "look")
    return build(
        study.Study,
        "study",
        settings,
        anchors=tuple(anchor.name for anchor in build(anchors, "anchors", config.anchors)),
        rules=build(Rules, "rules", config.rules, space=space),
        checks=build(Checks, "checks", config.checks),
        protection=protection(config.layer),
        seed=config.seed,
        settings=json.loads(json.dumps({part: _plain(config.get(part)) for part in parts})),
    )


def protection(layer) -> Protection:
    """What a layer's options say about protections."""
    names = {
        "division": "division_epsilon",
        "logarithm": "logarithm_epsilon",
        "moments": "epsilon",
        "sign_of_zero": "sign_of_zero",
    }
    return Protection(**{ours: layer[theirs] for ours, theirs in names.items() if theirs in layer})


def anchors(kind: str = "small", names=None, **widths):
    """The anchors that candidates are tried in.

    Args:
      kind: "paper" or "small".
      names: of those that are used; None for all.
      **widths: of `proxy.paper_anchors` or `proxy.small_anchors`.

    Raises:
      ValueError: an unknown kind or name.
    """
    kinds = {"paper": proxy_task.paper_anchors, "small": proxy_task.small_anchors}
    if kind not in kinds:
        raise ValueError(f"config.anchors.kind must be paper or small. Received kind={kind!r}.")
    made = {anchor.name: anchor for anchor in kinds[kind](**widths)}
    if set(names or ()) - set(made):
        raise ValueError(f"config.anchors.names must be of {', '.join(made)}. Received names={tuple(names)}.")
    return tuple(made[name] for name in names or made)


def candidate(config, folder, images, training=None) -> Candidate:
    """How the graphs of a config are tried."""
    build = sessions.build
    tests = {"quality": Quality, "stability": Stability}
    return Candidate(
        images,
        build(anchors, "anchors", config.anchors),
        build(proxy_task.Training, "training", {**config.training, **(training or {})}),
        **{name: None if config[name] is None else build(test, name, config[name]) for name, test in tests.items()},
        look=config.look,
        layer=dict(config.layer),
        seed=config.seed,
    )


def images_in(config, folder: str, rerank: bool = False) -> proxy_task.Images:
    """The images of a config, decoded once into the folder: for the search, or (rerank) all of them and the test images."""
    paths = {
        name: os.path.join(folder, f"images_{name}.npy") for name in ("train", "train_labels", "test", "test_labels")
    }
    if not all(os.path.exists(path) for path in paths.values()):
        for name, section, changed in (("train", "source", {}), ("test", "test", config.test)):
            source = sessions.build(data.source, section, {**config.source, **changed})
            side = config.images.size
            rows = list(data.labelled_dataset(source, (side, side), 256, margin=1.0))
            for kind, part in (("image", name), ("label", f"{name}_labels")):
                values = np.concatenate([row[kind].numpy() for row in rows])
                np.save(f"{paths[part]}.{os.getpid()}.npy", values)
                os.replace(f"{paths[part]}.{os.getpid()}.npy", paths[part])
    arrays = {name: np.load(path, mmap_mode="r") for name, path in paths.items()}
    return sessions.build(split, "images", config.images, seed=config.seed, rerank=rerank, **arrays)


def split(train, train_labels, test, test_labels, seed, rerank, size=32, held_out=1000) -> proxy_task.Images:
    """Images to train on and to measure on.

    Args:
      train, train_labels, test, test_labels: arrays.
      seed: of the split.
      rerank: whether all of train is trained on and test measured on, or else train is split.
      size: side of the images, pixels.
      held_out: how many of train are measured on.

    Raises:
      ValueError: if no images are left to train on.
    """
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    if rerank:
        return proxy_task.Images(train, train_labels, test, test_labels, classes)
    if not 0 < held_out < len(train):
        raise ValueError(f"config.images.held_out must leave images of {len(train)}. Received held_out={held_out}.")
    order = np.random.default_rng(seed).permutation(len(train))
    parts = [np.ascontiguousarray(array[order]) for array in (train, train_labels)]
    return proxy_task.Images(
        parts[0][held_out:], parts[1][held_out:], parts[0][:held_out], parts[1][:held_out], classes
    )


def crew(search: study.Study, workers: int, folder: str):
    """Workers of this machine, one core each, with a progress line, until the study is complete; a dead one is replaced.

    Raises:
      ValueError: a worker that dies again and again, with the end of what it wrote.
    """
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= workers <= len(cores):
        raise ValueError(
            f"--workers must be 1 to {len(cores)}, the cores of this machine. Received --workers={workers}."
        )

    def start(core):
        with open(os.path.join(folder, f"worker{core}.txt"), "ab") as out:
            mine = ["--mode=worker", f"--core={core}", f"--parent={os.getpid()}"]
            command = [sys.executable, "-m", "experiments.search", *_own_flags(), *mine]
            pin = functools.partial(os.sched_setaffinity, 0, {core})
            return subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, preexec_fn=pin)

    running, deaths = {core: start(core) for core in cores[:workers]}, dict.fromkeys(cores[:workers], 0)
    bar = tqdm(total=search.candidates, bar_format="{n}/{total} |{bar:20}| {elapsed} {postfix}", unit="candidate")
    begun, first = time.time(), None
    try:
        while running:
            time.sleep(1)
            for core, worker in list(running.items()):
                code = worker.poll()
                if code == 0:
                    del running[core]
                elif code is not None:
                    # A worker may be killed as often as one likes: candidates that kill theirs are given up by the study.
                    deaths[core] = 0 if code in (AGAIN, -signal.SIGKILL) else deaths[core] + 1
                    if deaths[core] >= _DEATHS:
                        raise ValueError(f"a worker died {_DEATHS} times in a row. Received {_tail(folder, core)}")
                    running[core] = start(core)
            finished = results.finished(search)
            first = len(finished) if first is None else first
            bar.n = len(finished)
            rate = 3600 * (len(finished) - first) / (time.time() - begun)
            bar.set_postfix_str(results.progress(search, rate))
    finally:
        for worker in running.values():
            worker.kill()
        bar.close()


def _own_flags():
    """The flags of this process, but for those of the mode."""
    mine = ("mode", "core", "parent", "workers")
    return [flag for flag in sys.argv[1:] if not flag.lstrip("-").startswith(mine)]


def _tail(folder, core):
    with open(os.path.join(folder, f"worker{core}.txt"), errors="replace") as file:
        return file.read()[-600:].strip() or "nothing on its output."


def _plain(section):
    return section.to_dict() if hasattr(section, "to_dict") else section


def _run():
    config = config_flags.DEFINE_config_file("config", help_string="FILE.py or FILE.py:VARIANT.")
    flags.DEFINE_string(
        "workdir", None, "Folder of the search: database, images, report. A search in it is gone on with."
    )
    flags.DEFINE_enum("mode", "search", MODES, "What to do.")
    flags.DEFINE_integer("workers", 1, "Processes of --mode=search, one core each.")
    flags.DEFINE_integer("core", None, "Of --mode=worker: it is to use one core.")
    flags.DEFINE_integer("parent", None, "Of --mode=worker: the process with which it ends.")
    flags.mark_flags_as_required(["config", "workdir"])

    def start(_):
        if flags.FLAGS.core is not None:
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        mode, folder = flags.FLAGS.mode, flags.FLAGS.workdir
        made_here = not config.value.study.get("url")
        if mode in ("report", "rerank", "export") and made_here and not os.path.exists(f"{folder}/{DATABASE}"):
            raise FileNotFoundError(
                f"--workdir must be the folder of a search. Received {folder!r}, without {DATABASE}."
            )
        session = sessions.start_session(config.value, folder, mode)
        main(session, flags.FLAGS.workers, flags.FLAGS.parent)

    sessions.run(start)


if __name__ == "__main__":
    _run()
