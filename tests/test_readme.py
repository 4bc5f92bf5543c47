"""Every code block of the README runs: its Python as it stands but for the length of training, its commands at `smoke` size."""

import os
import pathlib
import shlex
import subprocess
import sys

import authors_state
import examples
import pytest
import tensorflow as tf

from tf_pixpro.checkpoints import pth
from tf_pixpro.data import scenes

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
# tests/experiments/test_demo.py runs the first, .ci/run the second; the others train many networks.
ELSEWHERE = ("make demo", "make test", ".venv/bin/python -m experiments.benchmark")


def blood_cells(folder):
    """Pascal VOC folders as BCCD has them, one image in each split."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for name, split in (("one", "train"), ("two", "val")):
        image = tf.io.encode_jpeg(scenes.scene(0, seed=0, size=(96, 96)).image).numpy()
        (folder / "JPEGImages" / f"{name}.jpg").write_bytes(image)
        box = "<xmin>5</xmin><ymin>5</ymin><xmax>50</xmax><ymax>60</ymax>"
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>96</width><height>96</height><depth>3</depth></size>"
            f"<object><name>RBC</name><bndbox>{box}</bndbox></object></annotation>"
        )
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{name}\n")


def commands():
    """The README's command lines, in order, those that end in a backslash joined."""
    text = "\n".join(block for language, block in examples.blocks(README) if language in ("", "bash"))
    lines = [line.partition("  #")[0].strip() for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith(ELSEWHERE)]


def smoke(line):
    """A command at `smoke` size: its images are then drawn ones, so that a path to photos has no place."""
    words = shlex.split(line)
    assert words[:2] == [".venv/bin/python", "-m"], line
    made = [sys.executable, "-m"]
    for word in words[2:]:
        if word.startswith("--config=experiments/configs/"):
            word = word.replace("experiments/configs", str(ROOT / "experiments" / "configs")) + ":smoke"
        if not word.startswith("--config.source.path="):
            made.append(word)
    return made


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commands(tmp_path, golden):
    blood_cells(tmp_path / "BCCD")
    given = golden("pixpro/c_pixpro_t1_64_in.npz")
    pth.write(tmp_path / "pixpro_base_r50_400ep.pth", authors_state.published(given))
    assert len(commands()) >= 12
    for line in commands():
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(smoke(line), cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, f"{line}\n{run.stdout[-1000:]}\n{run.stderr[-3000:]}"


@pytest.mark.slow
def test_python_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert examples.run(README) >= 2
