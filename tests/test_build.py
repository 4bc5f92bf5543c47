"""Bazel's BUILD against the tree: every source and test is in a target; libraries depend on each other as packages
do."""

import ast
import pathlib

import pytest
from test_house import ORDER, ROOT, sources

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
KINDS = ("py_library", "py_binary", "pytest_test")


def relative(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def glob(include, exclude=(), allow_empty=False):
    """Bazel's function of this name."""
    found = {relative(path) for pattern in include for path in ROOT.glob(pattern)}
    return sorted(found - {relative(path) for pattern in exclude for path in ROOT.glob(pattern)})


@pytest.fixture(scope="module")
def targets():
    """(kind, name) -> attributes; BUILD is Python as far as it goes."""
    found = {}

    def rule(kind):
        return lambda **attributes: found.update({(kind, attributes["name"]): attributes})

    known = {"load": lambda *_: None, "package": lambda **_: None, "glob": glob, **{kind: rule(kind) for kind in KINDS}}
    exec(compile(ast.parse((ROOT / "BUILD").read_text()), "BUILD", "exec"), known)
    return found


def of_kind(targets, kind):
    return {name: attributes for (its, name), attributes in targets.items() if its == kind}


@pytest.mark.parametrize("package", ORDER)
def test_a_library_is_a_package_and_what_lies_below_it(targets, package):
    library = of_kind(targets, "py_library")[package]
    assert set(library["srcs"]) == {relative(path) for path in sources(package)}
    below = ORDER[: ORDER.index(package)]
    assert set(library.get("deps", [])) == {f":{name}" for name in below}


def test_every_program_is_there(targets):
    programs = {path for path in sources("experiments") if path.parent == ROOT / "experiments"}
    started = {relative(path) for path in programs if path.stem != "__init__"}
    assert {attributes["main"] for attributes in of_kind(targets, "py_binary").values()} == started


def test_every_test_file_is_there(targets):
    assert {a["src"] for a in of_kind(targets, "pytest_test").values()} == {relative(path) for path in TESTS}
