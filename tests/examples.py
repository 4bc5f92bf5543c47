"""The Python examples of the README, run as they stand but for the length of training: `python examples.py README.md`, in any environment.

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

# What makes the examples short; each must be there, so that a changed example is seen.
SHORTER = {
    "size=(96, 96), global_batch=32": "size=(64, 64), global_batch=2",
    "steps_per_epoch=100, epochs=10": "steps_per_epoch=1, epochs=1",
    "PixPro(resnet(18)": "PixPro(resnet(18, blocks=(1, 1, 1, 1), width=0.125)",
    "encoder = resnet(18)": "encoder = resnet(18, blocks=(1, 1, 1, 1), width=0.125)",
}


def blocks(readme: str) -> list:
    """[(language, text), ...] of all code blocks."""
    return re.findall(r"^```(\w*)\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)


def photos(path, count=4):
    """A zip of small JPEG images with one folder per class."""
    with zipfile.ZipFile(path, "w") as file:
        for index in range(count):
            image = tf.io.encode_jpeg(scenes.scene(index, seed=0, size=(96, 96)).image).numpy()
            file.writestr(f"train/class{index % 2}/{index}.jpg", image)


def run(readme: str) -> int:
    """Runs the Python examples in the working folder; returns how many."""
    photos("my_photos.zip")
    examples = [block for language, block in blocks(readme) if language == "python"]
    text = "\n".join(examples)
    for long in SHORTER:
        assert long in text, f"README.md no longer says {long!r}"
    for example in examples:
        for long, short in SHORTER.items():
            example = example.replace(long, short)
        exec(compile(example, "README.md", "exec"), {})
    assert tf.train.list_variables("backbone")
    return len(examples)


if __name__ == "__main__":
    readme = pathlib.Path(sys.argv[1]).read_text()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print(f"{run(readme)} examples of the README run")
        os.chdir("/")
