"""The parts of the search that know no TensorFlow: a worker that only waits, or a report, starts without it."""

import subprocess
import sys

ALONE = """
import sys, types
package = types.ModuleType("tf_evonorm")
package.__path__ = ["tf_evonorm"]
sys.modules["tf_evonorm"] = package  # its own file imports the layers
import importlib
for name in {names}:
    importlib.import_module("tf_evonorm.search." + name)
print(*[name for name in sys.modules if name.split(".")[0] in ("tensorflow", "keras", "official", "tf_pixpro")])
"""


def test_no_tensorflow():
    names = ["space.primitives", "space.graph", "space.checks", "study.evolution", "study.study"]
    run = subprocess.run([sys.executable, "-c", ALONE.format(names=names)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
