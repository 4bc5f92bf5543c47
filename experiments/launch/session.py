"""What all binaries share: their flags, the working folder, the strategy, a config's sections as objects, one line for a mistake."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import logging as std_logging
import os
import re
import sys
import traceback

import tensorflow as tf
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from official.common import distribute_utils
from official.modeling import performance

from tf_evonorm.atomic import atomic_path

MODES = ("train", "eval", "train_and_eval")
PRECISIONS = ("float32", "bfloat16", "float16")
# Sections that may change between two starts in one working folder; all others make it another experiment.
_FREE = ("runtime", "trainer", "evaluation", "pictures")


@dataclasses.dataclass
class Session:
    """One start of a binary.

    Attributes:
      config: the experiment's `ConfigDict`.
      workdir: the run's folder.
      mode: 'train', 'eval' or 'train_and_eval'.
      strategy: where it runs.
    """

    config: ConfigDict
    workdir: str
    mode: str = "train_and_eval"
    strategy: tf.distribute.Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)

    @property
    def chief(self) -> bool:
        """Whether this process writes what is kept."""
        return self.strategy.extended.should_checkpoint


def launch(main, modes=MODES):
    """Runs a binary: `main(session)` with the flags --config, --workdir, --mode and --tpu.

    A mistake of the caller (a wrong flag, key, path or value) ends it with one line on stderr and exit code 1; the traceback goes to
    the log in the working folder.
    """
    config_flag = config_flags.DEFINE_config_file(
        "config", help_string="FILE.py or FILE.py:VARIANT; --config.section.key=value changes one value."
    )
    flags.DEFINE_string(
        "workdir", None, "Folder of the run: checkpoints, summaries, config.json. A run in it is gone on with."
    )
    flags.DEFINE_enum("mode", "train_and_eval", modes, "What to do.")
    flags.DEFINE_string("tpu", None, "Name or address of a TPU, or 'local'.")
    flags.mark_flags_as_required(["config", "workdir"])
    for name in ("config", "workdir", "mode", "tpu"):  # which --help then shows as those of the binary
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def start(_):
        main(start_session(config_flag.value, flags.FLAGS.workdir, flags.FLAGS.mode, flags.FLAGS.tpu))

    run(start)


def run(main):
    """Runs a program: `main(arguments)` after its flags are read; a mistake of the caller ends it with one line and exit code 1."""
    logging.get_absl_handler().setLevel(std_logging.WARNING)
    logging.get_absl_handler().setFormatter(std_logging.Formatter("%(levelname)s: %(message)s"))
    tensorflow = tf.get_logger()
    tensorflow.setLevel("WARNING")
    tensorflow.addFilter(lambda record: "deprecat" not in str(record.msg))  # for developers of what we call
    for handler in list(tensorflow.handlers):  # absl's, on the root, tells it too
        tensorflow.removeHandler(handler)
    try:
        app.run(main, flags_parser=_parse)
    except (ValueError, FloatingPointError, OSError, tf.errors.OpError) as error:
        logging.info("%s", traceback.format_exc())
        sys.exit(f"{_binary()}: {_line(error)}")


def start_session(config: ConfigDict, workdir: str, mode: str = "train_and_eval", tpu=None) -> Session:
    """Makes a run ready: seeds, precision, strategy, working folder with config.json and a log.

    Args:
      config: an experiment. It may hold `seed`, `deterministic` and `runtime`, the keyword arguments of Model Garden's RuntimeConfig;
        num_gpus=-1 takes all there are.
      workdir: the run's folder, made if need be.
      mode: as in `Session`; or another one of a binary's own. 'export' takes the config that the run recorded, but for `runtime`.
      tpu: name or address of a TPU, or 'local'; it takes the place of runtime.distribution_strategy.

    Raises:
      ValueError: if the folder holds a run of another config or cannot be written, or the strategy is unknown.
      FileNotFoundError: if 'export' finds no run.
    """
    if mode == "export":
        config = ConfigDict({**recorded(workdir), "runtime": config.get("runtime", {})})
    if config.get("deterministic"):
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(config.get("seed", 0))
    runtime = config.get("runtime", ConfigDict())
    if runtime.get("num_gpus", -1) < 0:
        runtime.num_gpus = len(tf.config.list_physical_devices("GPU"))
    if tpu:
        runtime.distribution_strategy, runtime.tpu = "tpu", tpu
    kind = runtime.get("distribution_strategy", "mirrored")
    if kind == "mirrored" and runtime.num_gpus <= 1:
        kind = "one_device"  # the same, and XLA can compile it
    strategy = distribute_utils.get_distribution_strategy(
        kind,
        num_gpus=runtime.num_gpus,
        all_reduce_alg=runtime.get("all_reduce_alg"),
        num_packs=runtime.get("num_packs", 1),
        tpu_address=runtime.get("tpu"),
    )
    performance.set_mixed_precision_policy(tf.as_dtype(_precision(runtime)))
    session = Session(config, os.path.abspath(workdir) if "://" not in workdir else workdir, mode, strategy)
    try:
        tf.io.gfile.makedirs(session.workdir)
        _log_into(session)
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(
            f"--workdir must be a folder that can be made and written. Received {workdir!r}: {_line(error)}"
        ) from error
    if mode not in ("eval", "export"):
        _remember(session)
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
        return ConfigDict(json.load(file))


def build(constructor, name: str, section, /, **more):
    """Calls `constructor` with a section of the config.

    Args:
      constructor: whose keyword arguments the section holds.
      name: of the section, for messages.
      section: the `ConfigDict`, or None for an empty one.
      **more: arguments that the binary adds; the section must not name them.

    Returns:
      What the constructor returns.

    Raises:
      ValueError, FileNotFoundError: what the constructor raises, with the section's name before it; also if the section names an argument
        that the constructor does not have, or lacks one that it needs.
    """
    section = dict(section or {})
    try:
        return constructor(**section, **more)
    except (ValueError, FileNotFoundError) as error:
        if "config." in str(error):
            raise
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"config.{name}: {error}") from error
    except TypeError as error:
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        known = [
            key for key, p in inspect.signature(constructor).parameters.items() if p.kind in kinds and key not in more
        ]
        raise ValueError(
            f"config.{name} holds arguments of {constructor.__name__}. Received {section}: {error}. It takes {', '.join(known)}."
        ) from error


def build_named(constructors, section: str, settings, /, **more):
    """Builds what a section's `name` names of `constructors`, with the section's other arguments; see `build`.

    Raises:
      ValueError: also if there is no such name.
    """
    settings = dict(settings)
    name = settings.pop("name", None)
    if name not in constructors:
        raise ValueError(f"config.{section}.name must be one of {', '.join(constructors)}. Received {name!r}.")
    return build(constructors[name], section, settings, **more)


@contextlib.contextmanager
def quiet():
    """Keeps the train loop's printed lines, which the log has anyway, away from the progress bar."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _parse(argv):
    """Flags of a command line; whatever the config file or an override has wrong becomes one line."""
    try:
        return flags.FLAGS(argv)
    except SystemExit as end:  # absl tells of its help as a failure
        sys.exit(0 if any(argument.lstrip("-").startswith("help") for argument in argv[1:]) else end.code)
    except Exception as error:
        text = _line(error)
        if isinstance(error, (AttributeError, KeyError)):
            key, _, hint = text.partition(" ")
            hint = f" {hint}" if hint else ""
            text = f"a flag changes a key that the config file has. Received {key}.{hint} Copy the file to add others."
        sys.exit(f"{_binary()}: {text} See --help.")


def _binary():
    return os.path.splitext(os.path.basename(sys.argv[0]))[0]


def _line(error):
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    while isinstance(error, (AttributeError, KeyError)) and error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    if isinstance(error, KeyError):  # whose text is a repr
        text = str(error.args[0])
    if "Traceback" in text:  # of a config file or of Python inside a graph: the line with the error
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        text = next((line for line in reversed(lines) if re.match(r"[\w.]+: ", line)), lines[-1])
        text = re.sub(r"^[\w.]+(Error|Exception): ", "", text)
    text = text.split("In call to configurable")[0]  # added by gin on the way up
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]", "", text)  # where in TensorFlow it happened
    if "No space left" in text or "quota" in text:
        text += " Free some space and start again."
    return " ".join(text.split()) or type(error).__name__


def _log_into(session):
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


def _precision(runtime):
    dtype = runtime.get("mixed_precision_dtype") or "float32"
    if dtype not in PRECISIONS:
        raise ValueError(
            f"config.runtime.mixed_precision_dtype must be one of {', '.join(PRECISIONS)}. Received {dtype!r}."
        )
    return dtype


def _remember(session):
    """Writes config.json, or compares with the one that is there."""
    path = os.path.join(session.workdir, "config.json")
    written = session.config.to_json_best_effort(indent=1) + "\n"
    recorded = ""
    if tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path) as file:
            recorded = file.read()
    if recorded == written:
        return  # or processes that start together would all write it
    if recorded and tf.train.latest_checkpoint(session.workdir):
        before, now = _flat(json.loads(recorded)), _flat(json.loads(written))
        changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        changed = [f"{key}: {before.get(key)} -> {now.get(key)}" for key in changed if key.split(".")[0] not in _FREE]
        if changed:
            raise ValueError(
                f"a working folder holds one experiment. Received {session.workdir} with another config ({'; '.join(changed)}). "
                "Take another --workdir, or the config of before."
            )
    if session.chief:
        with atomic_path(path) as partial, tf.io.gfile.GFile(partial, "w") as file:
            file.write(written)


def _flat(tree, prefix=""):
    """Nested dict -> {'section.key': value}."""
    flat = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
