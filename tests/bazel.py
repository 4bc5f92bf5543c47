"""Starts pytest inside a Bazel test: `tests/bazel.py FILE...`."""

import os
import sys

import pytest

if __name__ == "__main__":
    options = ["-c", "pyproject.toml", "--rootdir", ".", "-p", "no:cacheprovider"]
    report = os.environ.get("XML_OUTPUT_FILE")
    sys.exit(pytest.main([*options, *([f"--junitxml={report}"] if report else []), *sys.argv[1:]]))
