"""TensorFlow's faster kernels are on where a program starts, unless the user has chosen."""

import os
import subprocess
import sys

import pytest

import experiments

SCRIPT = "import experiments; from tensorflow.python.util import _pywrap_util_port as port; print(port.IsMklEnabled())"


@pytest.mark.parametrize(
    "machine, chosen, expected",
    [
        ("x86_64", None, "1"),
        ("AMD64", None, "1"),  # the name on Windows
        ("x86_64", "0", "0"),
        ("x86_64", "1", "1"),
        ("aarch64", None, None),
        ("arm64", None, None),
    ],
)
def test_the_users_choice_stands_and_others_than_x86_keep_their_default(machine, chosen, expected):
    environment = {} if chosen is None else {"TF_ENABLE_ONEDNN_OPTS": chosen}
    experiments.choose_kernels(environment, machine)
    assert environment.get("TF_ENABLE_ONEDNN_OPTS") == expected


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="oneDNN is chosen on x86 only")
@pytest.mark.parametrize("chosen, expected", [(None, "True"), ("0", "False")])
def test_tensorflow_starts_with_them(chosen, expected):
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    environment.update({} if chosen is None else {"TF_ENABLE_ONEDNN_OPTS": chosen})
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split()[-1] == expected
