"""What an installation promises: it imports on every system, and claims no more names than it needs."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# A system without what Linux alone has, or Linux and macOS. TensorFlow and others are loaded before, as their
# own builds for such a system would be; packages of the extras may be missing.
ELSEWHERE = """
import importlib, os, pathlib, signal, sys
import tensorflow as tf
import distributed, optuna, sqlalchemy
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog"):
    sys.modules[name] = None  # importing it is now an error
for name in ("fork", "forkpty", "uname", "sched_setaffinity", "sched_getaffinity", "getuid", "nice", "O_NOFOLLOW"):
    if hasattr(os, name):
        delattr(os, name)
del signal.SIGKILL
for package in sys.argv[1:]:
    for path in sorted(pathlib.Path(package).rglob("*.py")):
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in ("official", "sklearn", "matplotlib", "tensorflow_datasets", "tqdm"):
                raise
"""


@pytest.mark.parametrize("package", ["tf_evonorm", "tf_pixpro"])
def test_imports_need_nothing_of_linux(package):
    run = subprocess.run([sys.executable, "-c", ELSEWHERE, package], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_libraries_load_none_of_the_extras():
    extras = {"official", "ml_collections", "optuna", "dask", "distributed", "matplotlib", "tensorflow_datasets"}
    code = "import sys, tf_evonorm, tf_pixpro; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and not extras & set(run.stdout.split()), run.stderr or run.stdout


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel of this tree as it lies in an environment."""
    folder = tmp_path_factory.mktemp("wheel")
    names = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "Makefile")
    for name in names:
        shutil.copy(ROOT / name, folder)
    for name in ("tf_evonorm", "tf_pixpro", "tf_pixpro_programs", "experiments"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "built", "."]
    subprocess.run(pip, cwd=folder, check=True)
    (wheel,) = (folder / "built").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_claims_no_common_name(unpacked):
    names = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"tf_evonorm", "tf_pixpro", "tf_pixpro_programs"}
    programs = {path.relative_to(ROOT) for path in (ROOT / "experiments").rglob("*.py")}
    assert {
        path.relative_to(unpacked / "tf_pixpro_programs") for path in unpacked.rglob("experiments/**/*.py")
    } == programs


@pytest.mark.parametrize("command, binary", [("pixpro", "pretrain"), ("evonorm", "search")])
def test_commands_of_the_wheel_run_in_any_folder_and_so_do_their_children(unpacked, tmp_path, command, binary):
    code = f"""
import subprocess, sys
import tf_pixpro_programs
tf_pixpro_programs.{command}()
import experiments
print(experiments.__file__)
sys.exit(subprocess.run([sys.executable, "-c", "import experiments; print(experiments.__file__)"]).returncode)
"""
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert f"  {binary} " in run.stdout
    where = str(unpacked / "tf_pixpro_programs" / "experiments" / "__init__.py")
    assert run.stdout.count(where) == 2


def test_the_wheel_alone_does_not_make_experiments_importable(unpacked, tmp_path):
    code = "import importlib.util; print(importlib.util.find_spec('experiments'))"
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.stdout.strip() == "None", run.stderr
