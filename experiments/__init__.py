"""Command-line binaries: one verb each, configured by the Python files in `configs/`."""

import os
import warnings
from importlib.metadata import version

# Model Garden and `tf.keras` must mean the same Keras 2: `tf_keras` where Keras 3 is installed, else `keras` itself,
# because Addons imports that by name and two Keras 2 in one process overwrite each other's entries. To be said before
# TensorFlow is imported.
os.environ["TF_USE_LEGACY_KERAS"] = "1" if int(version("keras").split(".")[0]) > 2 else "0"
# TensorFlow's own notices are not for the terminal.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore", category=FutureWarning)
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
