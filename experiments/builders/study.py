"""The objects of a search from the sections of its config: study, anchors, images, trial of a candidate."""

from __future__ import annotations

import contextlib
import gc
import json
import os
from collections.abc import Callable, Iterable
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from experiments.launch import session as sessions
from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.space.checks import Checks
from tf_evonorm.search.space.graph import Space
from tf_evonorm.search.space.primitives import Protection
from tf_evonorm.search.study import cluster
from tf_evonorm.search.study.evolution import Rules
from tf_evonorm.search.study.study import Study
from tf_evonorm.search.study.workers import work
from tf_evonorm.search.trial.anchors import Anchor, paper_anchors, small_anchors
from tf_evonorm.search.trial.candidate import Candidate
from tf_evonorm.search.trial.proxy_task import Images, Training
from tf_evonorm.search.trial.rejection import LearningCurve, Quality, Stability
from tf_pixpro import data

DATABASE = "study.db"
_ANCHORS: dict[str, Callable] = {"paper": paper_anchors, "small": small_anchors}
# What identifies an experiment beside the arguments of `Study`: name in the database -> section of the config.
_SETTINGS = {
    **{name: name for name in ("source", "images", "anchors", "training", "layer", "quality", "stability", "curve")},
    "look": "precheck",
}


def open_study(config: ConfigDict, folder: str) -> Study:
    """Opens the study of a config; its database is a file in the folder unless `config.study.url` names another.

    Args:
      config: of the search.
      folder: folder of the search.

    Raises:
      Mistake: if the database holds another experiment, or a section is wrong.
    """
    build = sessions.build
    settings = {**config.study, "url": config.study.get("url") or f"sqlite:///{folder}/{DATABASE}"}
    space = build(Space, "space", config.space)
    return build(
        Study,
        "study",
        settings,
        anchors=tuple(anchor.name for anchor in build(anchors, "anchors", config.anchors)),
        rules=build(Rules, "rules", config.rules, space=space),
        checks=build(Checks, "checks", config.checks),
        protection=protection(config.layer),
        seed=config.seed,
        settings=json.loads(json.dumps({name: _plain(_section(config, part)) for name, part in _SETTINGS.items()})),
    )


def protection(layer: ConfigDict | dict) -> Protection:
    """Returns the protections of the primitives that the options of `GraphLayer` set."""
    names = {
        "division": "division_epsilon",
        "logarithm": "logarithm_epsilon",
        "moments": "epsilon",
        "sign_of_zero": "sign_of_zero",
    }
    return Protection(**{name: layer[option] for name, option in names.items() if option in layer})


def anchors(kind: str = "small", names: Optional[Iterable[str]] = None, **widths: float) -> tuple[Anchor, ...]:
    """Returns the anchors in which candidates are tried.

    Args:
      kind: "paper" or "small".
      names: names of those that are used; None for all.
      **widths: arguments of `paper_anchors` or `small_anchors`.

    Raises:
      Mistake: for an unknown kind or name.
    """
    if kind not in _ANCHORS:
        raise Mistake(
            f"config.anchors.kind must be paper or small. Received kind={kind!r}. The paper's need a cluster."
        )
    made = {anchor.name: anchor for anchor in _ANCHORS[kind](**widths)}
    chosen = tuple(names or made)
    if set(chosen) - set(made):
        raise Mistake(
            f"config.anchors.names must be of {', '.join(made)}. Received names={chosen}. Leave it out for all."
        )
    return tuple(made[name] for name in chosen)


def candidate(config: ConfigDict, images: Images, training: Optional[dict] = None) -> Candidate:
    """Returns the trial of a candidate.

    Args:
      config: of the search.
      images: images to train and measure on.
      training: changes to `config.training`.
    """
    build = sessions.build
    tests = {
        name: None if config.get(name) is None else build(test, name, config[name])
        for name, test in (("quality", Quality), ("stability", Stability), ("curve", LearningCurve))
    }
    return Candidate(
        images,
        build(anchors, "anchors", config.anchors),
        build(Training, "training", {**config.training, **(training or {})}),
        **tests,
        precheck=_section(config, "precheck"),
        layer=dict(config.layer),
        seed=config.seed,
    )


def work_on(config: dict, folder: str) -> bool:
    """The task of one Dask worker: tries candidates of a study in this process, on one core.

    Args:
      config: of the search, as nested dicts.
      folder: folder of the search; made where it is missing, as on another machine.

    Returns:
      Whether the study is complete; False after `config.restart_after` candidates, when a new process is wanted.
    """
    cluster.bind_to_core()
    with contextlib.suppress(RuntimeError):  # a process that has tried candidates before has its threads already
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    os.makedirs(folder, exist_ok=True)
    experiment = ConfigDict(config)
    study, trial = open_study(experiment, folder), candidate(experiment, images(experiment, folder))
    gc.freeze()  # the libraries are never collected; scanning them after each candidate took 5 % of the time
    return work(study, trial, experiment.restart_after)


def images(config: ConfigDict, folder: str, rerank: bool = False) -> Images:
    """Returns the images of a config, which are decoded once and stored in the folder.

    Args:
      config: of the search.
      folder: folder of the search.
      rerank: False for the images of the search, True to train on all of them and measure on the test images.
    """
    paths = {
        name: os.path.join(folder, f"images_{name}.npy") for name in ("train", "train_labels", "test", "test_labels")
    }
    if not all(os.path.exists(path) for path in paths.values()):
        sections: list[tuple[str, str, dict[str, Any]]] = [("train", "source", {}), ("test", "test", dict(config.test))]
        for name, section, changes in sections:
            source = sessions.build(data.source, section, {**config.source, **changes})
            side = config.images.size
            rows = list(data.labelled_dataset(source, (side, side), 256, margin=1.0))
            for kind, part in (("image", name), ("label", f"{name}_labels")):
                _store(paths[part], np.concatenate([row[kind].numpy() for row in rows]))
    arrays = {name: np.load(path, mmap_mode="r") for name, path in paths.items()}
    return sessions.build(split, "images", config.images, seed=config.seed, rerank=rerank, **arrays)


def split(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    seed: int,
    rerank: bool,
    size: int = 32,
    held_out: int = 1000,
) -> Images:
    """Splits images into those to train on and those to measure on.

    Args:
      train, train_labels, test, test_labels: arrays.
      seed: seed of the split.
      rerank: True trains on all of `train` and measures on `test`; False splits `train`.
      size: side of the images, in pixels.
      held_out: number of images of `train` to measure on.

    Raises:
      Mistake: if no images are left to train on.
    """
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    if rerank:
        return Images(train, train_labels, test, test_labels, classes)
    if not 0 < held_out < len(train):
        raise Mistake(
            f"config.images.held_out must leave images of {len(train)}. Received held_out={held_out}. "
            "Take a tenth of them."
        )
    order = np.random.default_rng(seed).permutation(len(train))
    values, labels = (np.ascontiguousarray(array[order]) for array in (train, train_labels))
    return Images(values[held_out:], labels[held_out:], values[:held_out], labels[:held_out], classes)


def _store(path: str, array: np.ndarray) -> None:
    """Writes an array atomically, also while other processes write the same one."""
    partial = f"{path}.{os.getpid()}.npy"
    np.save(partial, array)
    os.replace(partial, path)


def _section(config: ConfigDict, name: str) -> Any:
    """Returns a section of a config, which an earlier version may have recorded under another name."""
    return config["look"] if name == "precheck" and name not in config else config.get(name)


def _plain(section: Any) -> Any:
    return section.to_dict() if hasattr(section, "to_dict") else section
