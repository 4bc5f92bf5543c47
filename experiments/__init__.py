"""Command-line binaries: one verb each, configured by the Python files in `configs/`."""

import os
import warnings

# Model Garden speaks Keras 2, TensorFlow's own notices are not for the terminal; both must be said before TensorFlow is imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore", category=FutureWarning)
