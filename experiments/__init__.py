"""Command-line binaries: one verb each, configured by the Python files in `configs/`."""

import os
import platform
import warnings
from collections.abc import MutableMapping
from importlib.metadata import version


def choose_kernels(environment: MutableMapping[str, str], machine: str) -> None:
    """Turns TensorFlow's oneDNN kernels on, unless the user has chosen; to be called before TensorFlow is imported.

    By default TensorFlow uses them on x86 processors with AVX-512 alone, although they are faster without it, too (see
    docs/measurements.md). On other processors its own default stands.

    Args:
      environment: `os.environ`.
      machine: `platform.machine()`.
    """
    if machine.lower() in ("x86_64", "amd64"):
        environment.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


choose_kernels(os.environ, platform.machine())
# Model Garden and `tf.keras` must mean the same Keras 2: `tf_keras` where Keras 3 is installed, else `keras` itself,
# because Addons imports that by name and two Keras 2 in one process overwrite each other's entries. To be said before
# TensorFlow is imported.
os.environ["TF_USE_LEGACY_KERAS"] = "1" if int(version("keras").split(".")[0]) > 2 else "0"
# TensorFlow's own notices are not for the terminal.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore", category=FutureWarning)
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
