"""Command-line binaries: one verb each, configured by the Python files in `configs/`."""
