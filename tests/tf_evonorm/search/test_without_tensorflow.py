"""Rooms of the search without TensorFlow, so that a worker that only waits starts at once; without matplotlib, too."""

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
heavy = ("tensorflow", "keras", "official", "tf_pixpro", "matplotlib")
print(*[name for name in sys.modules if name.split(".")[0] in heavy])
"""


def test_no_tensorflow():
    names = [
        "space.primitives",
        "space.graph",
        "space.checks",
        "space.simplify",
        "study.evolution",
        "study.study",
        "study.workers",
    ]
    run = subprocess.run([sys.executable, "-c", ALONE.format(names=names)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_the_report_imports_matplotlib_where_a_figure_is_drawn():
    code = "import sys, tf_evonorm; before = 'matplotlib' in sys.modules  # Keras 3 imports it where it is installed\n"
    code += "import tf_evonorm.search.study.report; print(before or 'matplotlib' not in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "True", run.stderr
