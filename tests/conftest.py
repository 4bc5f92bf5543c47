"""What every test shares: quiet TensorFlow, the golden vectors, the real images, and both set by one place."""

import gc
import os
import pathlib

import stack  # before TensorFlow is imported

# isort: split
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

# Two devices on one processor, for tests of several replicas; this must be set before TensorFlow computes anything.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

assert not stack.KERAS_3 or tf.keras.__version__.startswith("3.")  # loads it, before a test imports a binary
collect_ignore_glob = stack.IGNORED
SHARED = pathlib.Path(os.environ.get("TF_PIXPRO_SHARED", pathlib.Path(__file__).resolve().parents[2] / "shared"))


def _shared(*parts: str) -> pathlib.Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(
            f"needs {path.relative_to(SHARED.parent)}, which lies beside the checkout only where it is provided"
        )
    return path


@pytest.fixture(scope="session")
def golden():
    """`golden('pixpro/d_lars.npz')` -> the loaded archive of reference numbers."""
    return lambda name: np.load(_shared("golden", name))


@pytest.fixture(scope="session")
def shared_data():
    """`shared_data('photos/caltech101_sub.zip')` -> path of a real image set."""
    return lambda name: _shared("data", name)


@pytest.fixture(scope="session")
def two_replicas():
    """A strategy of two replicas on one machine; one for all tests: reductions of several in one process collide."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(autouse=True)
def _seeded():
    """The same weights and noise wherever a test runs, alone or after others: bounds are of one draw, not of all."""
    tf.keras.utils.set_random_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _swept():
    """Frees the models and graphs of a file: garbage collection over all of them took minutes at the end."""
    yield
    _sweep()


@pytest.fixture(autouse=True)
def _swept_if_slow(request):
    yield
    if request.node.get_closest_marker("slow"):
        _sweep()


def _sweep():
    tf.keras.backend.clear_session()
    # Each trace of a custom gradient is registered for good, and holds its whole graph: gigabytes by the end.
    registered = ops.gradient_registry._registry
    for name in [name for name in registered if name.startswith("CustomGradient-")]:
        del registered[name]
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@pytest.fixture
def float64():
    """Keras in float64 for one test, to compare with references in double precision."""
    tf.keras.backend.set_floatx("float64")
    tf.keras.mixed_precision.set_global_policy("float64")  # a policy that another test has set would outlive floatx
    yield
    tf.keras.backend.set_floatx("float32")
    tf.keras.mixed_precision.set_global_policy("float32")
