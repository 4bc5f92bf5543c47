"""Benchmarks and studies: `python -m experiments.benchmark NAME [options]`; `--help` after a name lists its options."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

MEASUREMENTS = {
    "pretrain-step": "experiments.benchmarks.pretrain_step",
    "input": "experiments.benchmarks.input_pipeline",
    "open": "experiments.benchmarks.input_open",
    "layers": "experiments.benchmarks.layers",
    "tpu": "experiments.benchmarks.tpu",
    "gpu": "experiments.benchmarks.gpu",
    "batch-sizes": "experiments.studies.batch_sizes",
    "synthesis": "experiments.studies.gan_layers",
    "pretext": "experiments.studies.pretext_tasks",
    "settings": "experiments.studies.pretext_settings",
    "search": "experiments.studies.search_methods",
    "fidelity": "experiments.studies.search_fidelity",
    "curves": "experiments.studies.learning_curves",
}


def main(arguments: Sequence[str]) -> Any:
    """Runs the benchmark or study that the first argument names, with the other arguments."""
    if list(arguments[:1]) in (["-h"], ["--help"]):
        print(f"{__doc__}\nNAME is one of {', '.join(MEASUREMENTS)}.")
        return None
    if not arguments or arguments[0] not in MEASUREMENTS:
        received = arguments[0] if arguments else "nothing"
        sys.exit(f"{__doc__}\nThe first argument must be a name: {', '.join(MEASUREMENTS)}. Received {received}.")
    return importlib.import_module(MEASUREMENTS[arguments[0]]).main(arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
