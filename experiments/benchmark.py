"""How fast, and how good, the parts are: `python -m experiments.benchmark NAME [options]`; `--help` after a name lists them."""

import importlib
import sys

MEASUREMENTS = {
    "pretrain-step": "experiments.benchmarks.pretrain_step",
    "input": "experiments.benchmarks.input_pipeline",
    "layers": "experiments.benchmarks.layers",
    "batch-sizes": "experiments.studies.batch_sizes",
    "synthesis": "experiments.studies.gan_layers",
    "pretext": "experiments.studies.pretext_tasks",
    "search": "experiments.studies.search_methods",
}


def main(arguments):
    """Runs the measurement that the first argument names with the other arguments."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nNAME is one of {', '.join(MEASUREMENTS)}.")
        return None
    if not arguments or arguments[0] not in MEASUREMENTS:
        received = arguments[0] if arguments else "nothing"
        sys.exit(f"{__doc__}\nThe first argument names a measurement: {', '.join(MEASUREMENTS)}. Received {received}.")
    return importlib.import_module(MEASUREMENTS[arguments[0]]).main(arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
