"""Bazel's BUILD against the tree: every source and test is in a target, and dependencies are the imports."""

import ast
import collections
import pathlib

import pytest
from test_house import PACKAGES, ROOT, floor, imports, module_name, sources

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
SUPPORT = sorted(set((ROOT / "tests").rglob("*.py")) - set(TESTS) - {ROOT / "tests" / "bazel.py"})


def relative(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def library_of(path: pathlib.Path) -> str:
    """Library that a source belongs to: its package's floor; the tests' common files are one library."""
    module = module_name(path)
    package = module.partition(".")[0]
    return f"{package}_{floor(module)}" if package in PACKAGES and package != "experiments" else package


def libraries_used(path: pathlib.Path) -> set:
    files = [*sources(*PACKAGES), *SUPPORT]
    where = {module_name(file): library_of(file) for file in files}
    where |= {file.stem: "tests" for file in SUPPORT}  # tests import each other's common files by their bare names
    used = set()
    for name in imports(path):
        while name and name not in where:
            name = name.rpartition(".")[0]
        used |= {f":{where[name]}"} if name else set()
    return used


def expected_libraries() -> dict:
    """name -> (sources, dependencies)."""
    files = collections.defaultdict(set)
    for path in [*sources(*PACKAGES), *SUPPORT]:
        files[library_of(path)].add(path)
    return {
        name: ({relative(p) for p in paths}, set().union(*map(libraries_used, paths)) - {f":{name}"})
        for name, paths in sorted(files.items())
    }


def expected_binaries() -> dict:
    """name -> (source, dependencies) of everything that can be started."""
    started = [path for path in sources("experiments") if "__main__" in path.read_text()]
    return {path.stem: (relative(path), libraries_used(path) | {":experiments"}) for path in started}


def expected_tests() -> dict:
    """name -> (source, dependencies)."""
    return {
        relative(path).removesuffix(".py").replace("/", "_"): (relative(path), libraries_used(path) | {":tests"})
        for path in TESTS
    }


@pytest.fixture(scope="module")
def targets():
    """(kind, name) -> attributes; BUILD is Python as far as it goes."""
    calls = [node.value for node in ast.parse((ROOT / "BUILD").read_text()).body if isinstance(node, ast.Expr)]
    calls = [call for call in calls if isinstance(call, ast.Call)]
    found = [(call.func.id, {word.arg: ast.literal_eval(word.value) for word in call.keywords}) for call in calls]
    return {(kind, attributes["name"]): attributes for kind, attributes in found if "name" in attributes}


def of_kind(targets, kind):
    return {name: attributes for (its, name), attributes in targets.items() if its == kind}


def test_libraries_are_the_floors(targets):
    libraries = {name: (set(a["srcs"]), set(a.get("deps", []))) for name, a in of_kind(targets, "py_library").items()}
    assert libraries == expected_libraries()


def test_every_binary_is_there(targets):
    binaries = of_kind(targets, "py_binary")
    assert {name: (a["main"], set(a["deps"])) for name, a in binaries.items()} == expected_binaries()


def test_every_test_file_is_there(targets):
    tests = of_kind(targets, "pytest_test")
    assert {name: (a["src"], set(a["deps"])) for name, a in tests.items()} == expected_tests()
