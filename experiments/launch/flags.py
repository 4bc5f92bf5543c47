"""How a program starts and ends: its flags, one line for a mistake of the user, a traceback for anything else."""

from __future__ import annotations

import logging as std_logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from absl import app, flags, logging
from ml_collections import config_flags

from tf_evonorm.mistakes import Mistake

# What TensorFlow raises where files, a disk or the network fail.
_OF_THE_SYSTEM = (
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.AlreadyExistsError,
    tf.errors.FailedPreconditionError,
    tf.errors.ResourceExhaustedError,
    tf.errors.DataLossError,
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
)
# How TensorFlow names the operation that a data set's errors come out of; its type does not say.
_OF_THE_INPUT = re.compile(r"IteratorGetNext|ReduceDataset|Iterator::|No space left|Disk quota exceeded")


def define(modes: Sequence[str]) -> config_flags.ConfigFlag:
    """Defines the flags of a training program: --config, --workdir, --mode and --tpu; returns that of the config."""
    config = config_flags.DEFINE_config_file(
        "config", help_string="FILE.py or FILE.py:VARIANT; --config.section.key=value changes one value."
    )
    flags.DEFINE_string(
        "workdir", None, "Folder of the run: checkpoints, summaries, config.json. A run in it is resumed."
    )
    flags.DEFINE_enum("mode", "train_and_eval", modes, "What to do.")
    flags.DEFINE_string("tpu", None, "Name or address of a TPU, or 'local'.")
    flags.mark_flags_as_required(["config", "workdir"])
    for name in ("config", "workdir", "mode", "tpu"):  # which --help then shows as those of the program
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    return config


def run(main: Callable[[list], Any]) -> None:
    """Runs a program: `main(arguments)` after its flags are read.

    What `is_expected` ends it with one line and exit code 1, and with its traceback too if --debug is given. Any other
    exception is a bug and shows its traceback.
    """
    logging.get_absl_handler().setLevel(std_logging.WARNING)
    logging.get_absl_handler().setFormatter(std_logging.Formatter("%(levelname)s: %(message)s"))
    tensorflow = tf.get_logger()
    tensorflow.setLevel("WARNING")
    tensorflow.addFilter(lambda record: "deprecat" not in str(record.msg))  # for developers of what we call
    for handler in list(tensorflow.handlers):  # absl's, on the root, prints it too
        tensorflow.removeHandler(handler)
    if "debug" not in flags.FLAGS:
        flags.DEFINE_bool("debug", False, "Show the traceback of a mistake too.")
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS["debug"])
    try:
        app.run(main, flags_parser=_parse)
    except Exception as error:
        if not is_expected(error):
            raise
        if flags.FLAGS.debug:
            traceback.print_exc()
        sys.exit(f"{program()}: {line(error)}")


def is_expected(error: Exception) -> bool:
    """Whether an error comes from what the user gave, from the disk or from the data, and not from a bug.

    Expected are a `Mistake`, the stop at a non-finite loss, and errors of the file system and of the images. Any other
    ValueError is a bug.
    """
    if isinstance(error, (Mistake, FloatingPointError, OSError, *_OF_THE_SYSTEM)):
        return True
    return isinstance(error, tf.errors.OpError) and bool(_OF_THE_INPUT.search(str(error)))


def line(error: Exception) -> str:
    """An error's message in one line, without the places in TensorFlow and Python that it passed."""
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    while isinstance(error, (AttributeError, KeyError)) and error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    if isinstance(error, KeyError):  # whose text is a repr
        text = str(error.args[0])
    if "Traceback" in text or "in user code:" in text:  # a config file, Python inside a graph, AutoGraph
        lines = [one.strip() for one in text.splitlines() if one.strip()]
        text = next((one for one in reversed(lines) if re.match(r"[\w.]+: ", one)), lines[-1])
        text = re.sub(r"^[\w.]*(Error|Exception|Mistake): ", "", text)
    text = text.split("In call to configurable")[0]  # added by gin on the way up
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w+\]", "", text)  # where in TensorFlow it happened
    if "No space left" in text or "quota" in text:
        text += " Free some space and start again."
    return " ".join(text.split()) or type(error).__name__


def _parse(argv: list) -> list:
    """Flags of a command line; whatever the config file or an override has wrong becomes one line."""
    debug = any(re.fullmatch(r"--?debug(=[Tt]rue|=1)?", argument) for argument in argv[1:])
    try:
        return flags.FLAGS(argv)
    except SystemExit as end:  # absl ends its help as a failure
        sys.exit(0 if any(argument.lstrip("-").startswith("help") for argument in argv[1:]) else end.code)
    except Exception as error:
        if debug:
            traceback.print_exc()
        text = line(error)
        if isinstance(error, (AttributeError, KeyError)):
            key, _, hint = text.partition(" ")
            ending, given = "." + key.strip("'"), [argument.lstrip("-").partition("=")[0] for argument in argv[1:]]
            key = next((name for name in given if name.endswith(ending)), key)
            hint = f" {hint}" if hint else ""
            text = f"a flag changes a key that the config file has. Received {key}.{hint} Copy the file to add others."
        sys.exit(f"{program()}: {text} See --help.")


def program() -> str:
    """Name of the running program, such as 'pretrain'."""
    return os.path.splitext(os.path.basename(sys.argv[0]))[0]
