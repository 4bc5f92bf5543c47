"""Starts pytest inside a Bazel test: `tests/bazel.py FILE...`.

`bazel test --test_arg=-m --test_arg=slow TARGET` selects the slow tests.
"""

import os
import sys

import pytest

if __name__ == "__main__":
    options = ["-c", "pyproject.toml", "--rootdir", ".", "-p", "no:cacheprovider"]
    report = os.environ.get("XML_OUTPUT_FILE")
    code = pytest.main([*options, *([f"--junitxml={report}"] if report else []), *sys.argv[1:]])
    # A file may hold slow tests alone.
    sys.exit(0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code)
