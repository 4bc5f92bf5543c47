"""Python examples of documents and notebooks, run as they stand but for the length of training.

`python examples.py README.md docs/layers.md docs/notebooks/NAME.ipynb ...` also fails at a warning that our own code
or the example gives rise to.

This file imports nothing that the installed packages do not bring, so that it also tries a wheel alone.
"""

import json
import logging
import os
import pathlib
import re
import sys
import tempfile
import warnings
import zipfile

import tensorflow as tf

from tf_pixpro.data import scenes

# What makes the examples short, in whichever document it stands.
SHORTER = {
    "size=(96, 96), global_batch=32": "size=(64, 64), global_batch=2",
    "steps_per_epoch=100, epochs=10": "steps_per_epoch=1, epochs=1",
    "PixPro(resnet(18)": "PixPro(resnet(18, blocks=(1, 1, 1, 1), width=0.125)",
    "encoder = resnet(18)\n": "encoder = resnet(18, blocks=(1, 1, 1, 1), width=0.125)\n",
}


def blocks(document: str) -> list:
    """[(language, text), ...] of all code blocks."""
    return re.findall(r"^```(\w*)\n(.*?)^```", document, re.DOTALL | re.MULTILINE)


def photos(path, count=4, splits=("train",)):
    """A zip of small JPEG images with one folder per class in each split."""
    with zipfile.ZipFile(path, "w") as file:
        for index in range(count):
            image = tf.io.encode_jpeg(scenes.scene(index, seed=0, size=(96, 96)).image).numpy()
            for split in splits:
                file.writestr(f"{split}/class{index % 2}/{index}.jpg", image)


def run(document: str, name: str) -> int:
    """Runs the Python examples of a document one after another in the working folder; returns how many."""
    photos("my_photos.zip")
    if name.endswith(".ipynb"):  # all cells are one example; they make themselves short by SMOKE
        cells = json.loads(document)["cells"]
        examples = ["\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")]
    else:
        examples = [block for language, block in blocks(document) if language == "python"]
    for number, example in enumerate(examples):
        for long, short in SHORTER.items():
            example = example.replace(long, short)
        file = pathlib.Path(f"example{number}.py").resolve()  # TensorFlow reads the source of functions
        file.write_text(example)
        exec(compile(example, str(file), "exec"), {})
    return len(examples)


class Warned(logging.Handler):
    """Keeps what TensorFlow logs of our code: its own layers and Keras' are not ours."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.found = []

    def emit(self, record):
        text = record.getMessage()
        if any(name in text for name in ("tf_pixpro", "tf_evonorm", os.getcwd())):
            self.found.append(text)


def warned(run_it):
    """What `run_it` gives, and the warnings of our code."""
    handler = Warned()
    tf.get_logger().addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        count = run_it()
    tf.get_logger().removeHandler(handler)
    places = ("tf_pixpro", "tf_evonorm", os.getcwd())
    ours = [f"{w.filename}:{w.lineno}: {w.message}" for w in caught if any(name in w.filename for name in places)]
    return count, [*handler.found, *ours]


if __name__ == "__main__":
    os.environ["SMOKE"] = "1"
    documents = {path: pathlib.Path(path).read_text() for path in sys.argv[1:]}
    faults = []
    for path, document in documents.items():
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            number, found = warned(lambda: run(document, path))  # noqa: B023
            print(f"{number} examples of {path} run", *found, sep="\n", flush=True)
            faults += found
            os.chdir("/")
    sys.exit(len(faults) > 0)
