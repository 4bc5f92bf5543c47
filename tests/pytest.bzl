"""A test file as a Bazel test."""

load("@rules_python//python:defs.bzl", "py_test")

def pytest_test(name, src, deps, reads_the_tree = False, **kwargs):
    """Runs pytest on one file, the quick tests of it.

    Args:
      name: of the target.
      src: the test file.
      deps: libraries that it imports.
      reads_the_tree: whether it looks at all files of the project instead of importing them.
      **kwargs: of py_test.
    """
    tree = ["*.py", "README.md", "docs/*", "BUILD"] + ["%s/**/*.py" % part for part in ("tf_pixpro", "tf_evonorm", "experiments", "tests")]
    py_test(
        name = name,
        srcs = [src, "tests/bazel.py"],
        main = "tests/bazel.py",
        args = ["$(location %s)" % src],
        data = ["pyproject.toml"] + (native.glob(tree) if reads_the_tree else []),
        deps = deps,
        **kwargs
    )
