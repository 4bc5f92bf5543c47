"""A run's session: working folder with config.json and a log, seeds, precision, devices; closed at its end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging as std_logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import flags, logging
from ml_collections import ConfigDict
from official.modeling import performance

from experiments.launch import flags as program_flags
from experiments.launch.devices import strategy_of
from experiments.launch.flags import run
from experiments.launch.sections import build, build_named, require
from tf_evonorm.atomic import atomic_path
from tf_evonorm.mistakes import Mistake
from tf_pixpro.data import Source

__all__ = ["MODES", "Session", "build", "build_named", "launch", "quiet", "recorded", "require", "run", "start_session"]
MODES = ("train", "eval", "train_and_eval")
PRECISIONS = ("float32", "bfloat16", "float16")
# Sections that may change between two starts in one working folder; all others make it another experiment.
_FREE = ("runtime", "trainer", "evaluation", "pictures", "program")


@dataclasses.dataclass
class Session:
    """One start of a program; a context manager that closes the log of the run at its end.

    Attributes:
      config: the experiment's `ConfigDict`.
      workdir: the run's folder.
      mode: 'train', 'eval' or 'train_and_eval'.
      strategy: where it runs.
      program: the program's name, such as 'pretrain'; '' where it is not known.
    """

    config: ConfigDict
    workdir: str
    mode: str = "train_and_eval"
    strategy: tf.distribute.Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)
    program: str = ""
    _handlers: list[std_logging.Handler] = dataclasses.field(default_factory=list, repr=False)

    @property
    def chief(self) -> bool:
        """Whether this process writes what is kept."""
        return self.strategy.extended.should_checkpoint

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: Any) -> None:
        if error[1] is not None:
            logging.info("%s", error[1], exc_info=error[1])  # the log has the traceback of a mistake too
        self.close()

    def close(self) -> None:
        """Ends the log of the run; a session that is closed already stays so."""
        while self._handlers:
            handler = self._handlers.pop()
            for logger in (logging.get_absl_logger(), tf.get_logger()):
                logger.removeHandler(handler)
            handler.close()


def launch(main: Callable[[Session], Any], modes: Sequence[str] = MODES) -> None:
    """Runs a program: `main(session)` with the flags --config, --workdir, --mode and --tpu; see `flags.run`."""
    config_flag = program_flags.define(modes)

    def start(_: list) -> None:
        values = flags.FLAGS
        program = program_flags.program()
        with start_session(config_flag.value, values.workdir, values.mode, values.tpu, program) as session:
            main(session)

    run(start)


def start_session(
    config: ConfigDict, workdir: str, mode: str = "train_and_eval", tpu: str | None = None, program: str = ""
) -> Session:
    """Makes a run ready: seeds, precision, strategy, working folder with config.json and a log.

    Args:
      config: an experiment. It may hold `seed`, `deterministic` and `runtime`, the keyword arguments of Model Garden's
        RuntimeConfig; num_gpus=-1 takes all there are.
      workdir: the run's folder, made if need be.
      mode: as in `Session`; or another one of a program's own. 'export' takes the config that the run
        recorded, but for `runtime`.
      tpu: name or address of a TPU, or 'local'; it takes the place of runtime.distribution_strategy.
      program: the name of the program that config.json records; '' records none.

    Returns:
      A `Session`, to be closed or used as a context manager.

    Raises:
      Mistake: if the folder holds a run of another config or program or cannot be written, or devices are missing.
      FileNotFoundError: if 'export' finds no run.
    """
    if mode == "export":
        config = ConfigDict({**recorded(workdir), "runtime": config.get("runtime", {})})
    else:
        config = _of_today(config)
    if config.get("deterministic"):
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(config.get("seed", 0))
    runtime = config.get("runtime", ConfigDict())
    strategy = strategy_of(runtime, tpu)
    performance.set_mixed_precision_policy(tf.as_dtype(_precision(runtime)))
    folder = os.path.abspath(workdir) if "://" not in workdir else workdir
    session = Session(config, folder, mode, strategy, program)
    try:
        tf.io.gfile.makedirs(session.workdir)
        _log_into(session)
    except (OSError, tf.errors.OpError) as error:
        raise Mistake(
            f"--workdir must be a folder that can be made and written. Received {workdir!r}: "
            f"{program_flags.line(error)}"
        ) from error
    try:
        if mode not in ("eval", "export"):
            _remember(session)
    except Exception:
        session.close()
        raise
    return session


def recorded(workdir: str) -> ConfigDict:
    """The config of the run in a folder.

    Raises:
      FileNotFoundError: if no run has been started there.
    """
    path = os.path.join(workdir, "config.json")
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"the folder of a run is needed. Received {workdir!r}, without config.json.")
    with tf.io.gfile.GFile(path) as file:
        return ConfigDict(translated(json.load(file)))


def check_same_images(session: Session, source: Source) -> None:
    """Remembers in source.json what a run is trained on, and refuses to resume it on anything else.

    Of records the names and sizes of their files, and where in them each record begins, are compared; of other sources
    the number of images.

    Raises:
      Mistake: the folder has a checkpoint of a run on other images.
    """
    if "train" not in session.mode:
        return
    path = os.path.join(session.workdir, "source.json")
    now = {"images": source.num_examples, **{name: list(known) for name, *known in source.record_files}}
    if tf.io.gfile.exists(path) and tf.train.latest_checkpoint(session.workdir):
        with tf.io.gfile.GFile(path) as file:
            before = json.load(file)
        changed = [name for name in sorted(before.keys() | now.keys()) if not _same(before.get(name), now.get(name))]
        if changed:
            shown = [f"{name}: {before.get(name, 'none')} -> {now.get(name, 'none')}" for name in changed[:3]]
            raise Mistake(
                f"a run resumes on the images that it began with. Received {source.name} with {len(changed)} changed "
                f"({'; '.join(shown)}; bytes, and a checksum of where records begin). Bring them back, take another "
                f"--workdir, or remove {path} to resume on what is there now."
            )
        return
    if session.chief:
        tf.io.gfile.makedirs(session.workdir)
        with atomic_path(path) as partial, tf.io.gfile.GFile(partial, "w") as file:
            json.dump(now, file)


def _same(before, now):
    """Whether two entries of source.json agree; one that has only the bytes of a file says no more."""
    return before == now or (isinstance(now, list) and before == now[0])


def translated(described: dict[str, Any]) -> dict[str, Any]:
    """A config of version 0.1 in today's names.

    `backbone` was `encoder`; `norm_act.name` was `layer`, or absent; `optimizer.name` of classification was `type`.
    """
    described = dict(described)
    if "encoder" in described:
        encoder = described.pop("encoder")
        described.setdefault("backbone", {"name": "resnet", **encoder})
    if isinstance(described.get("norm_act"), dict):
        settings = dict(described["norm_act"])
        described["norm_act"] = {"name": settings.pop("layer", "bn_relu"), **settings}
    if "type" in (described.get("optimizer") or {}):
        settings = dict(described["optimizer"])
        described["optimizer"] = {"name": settings.pop("type"), **settings}
    return described


def _of_today(config: ConfigDict) -> ConfigDict:
    """The config itself, or where it comes from a file of version 0.1, the same in today's names."""
    old = "encoder" in config or "layer" in (config.get("norm_act") or {}) or "type" in (config.get("optimizer") or {})
    return ConfigDict(translated(config.to_dict())) if old else config


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the train loop's printed lines, which the log has anyway, away from the progress bar."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _log_into(session: Session) -> None:
    """Everything into a log in the working folder, warnings to stderr as well."""
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().setLevel(std_logging.WARNING)
    if "://" in session.workdir:
        return
    index = "" if session.chief else f"-{session.strategy.cluster_resolver.task_id}"
    handler = std_logging.FileHandler(os.path.join(session.workdir, f"log{index}.txt"))
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.get_absl_logger().addHandler(handler)
    tf.get_logger().addHandler(handler)
    session._handlers.append(handler)


def _precision(runtime: ConfigDict) -> str:
    dtype = runtime.get("mixed_precision_dtype") or "float32"
    if dtype not in PRECISIONS:
        raise Mistake(
            f"config.runtime.mixed_precision_dtype must be one of {', '.join(PRECISIONS)}. Received {dtype!r}."
        )
    return dtype


def _remember(session: Session) -> None:
    """Writes config.json, or compares with the one that is there."""
    path = os.path.join(session.workdir, "config.json")
    described = json.loads(session.config.to_json_best_effort())
    described.pop("program", None)
    if session.program:
        described["program"] = session.program
    written = json.dumps(described, indent=1) + "\n"
    recorded = ""
    if tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path) as file:
            recorded = file.read()
    if recorded == written:
        return  # or processes that start together would all write it
    if recorded and tf.train.latest_checkpoint(session.workdir):
        before, now = _flat(translated(json.loads(recorded))), _flat(described)
        if session.program and before.get("program", session.program) != session.program:
            raise Mistake(
                f"a working folder holds the run of one program. Received {session.workdir} with a run of "
                f"{before['program']}, not {session.program}. Take another --workdir."
            )
        changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        changed = [f"{key}: {before.get(key)} -> {now.get(key)}" for key in changed if key.split(".")[0] not in _FREE]
        if changed:
            raise Mistake(
                f"a working folder holds one experiment. Received {session.workdir} with another config "
                f"({'; '.join(changed)}). Take another --workdir, or the config of before."
            )
    if session.chief:
        with atomic_path(path) as partial, tf.io.gfile.GFile(partial, "w") as file:
            file.write(written)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dict -> {'section.key': value}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
