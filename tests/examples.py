"""Python examples of documents, run as they stand but for the length of training.

`python examples.py README.md docs/layers.md ...`

This file imports nothing that the installed packages do not bring, so that it also tries a wheel alone.
"""

import os
import pathlib
import re
import sys
import tempfile
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
    examples = [block for language, block in blocks(document) if language == "python"]
    for example in examples:
        for long, short in SHORTER.items():
            example = example.replace(long, short)
        exec(compile(example, name, "exec"), {})
    return len(examples)


if __name__ == "__main__":
    documents = {path: pathlib.Path(path).read_text() for path in sys.argv[1:]}
    for path, document in documents.items():
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            print(f"{run(document, path)} examples of {path} run")
            os.chdir("/")
