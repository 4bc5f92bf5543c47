"""Selects the Keras of a test run before TensorFlow is imported.

That of the programs, or Keras 3 with TF_USE_LEGACY_KERAS=0.
"""

import os
import sys
from importlib.metadata import version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
KERAS_3 = os.environ.get("TF_USE_LEGACY_KERAS") == "0" and version("keras").startswith("3.")
# What Keras 3 cannot have: Model Garden's tasks, the binaries, and the tests of the house that import them.
IGNORED = (
    ["experiments/*", "tf_pixpro/transfer/*", "tf_pixpro/train/*", "test_[!cf]*", "test_fuzz.py"] if KERAS_3 else []
)
if KERAS_3:
    sys.modules["official"] = None  # Model Garden is Keras 2: for these tests it is not there
import experiments  # noqa: E402, F401  # chooses Keras 2 and the kernels

if KERAS_3:
    os.environ["TF_USE_LEGACY_KERAS"] = "0"  # for this process, and those that tests start
