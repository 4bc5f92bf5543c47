"""Every code block of README and guides runs: Python with shorter training, commands at `smoke` size."""

import json
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
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
}
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
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
            f"<annotation><filename>{name}.jpg</filename>"
            "<size><width>96</width><height>96</height><depth>3</depth></size>"
            f"<object><name>RBC</name><bndbox>{box}</bndbox></object></annotation>"
        )
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{name}\n")


def field(folder):
    """Images and masks in folders, one image in each split."""
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        one = scenes.scene(0, seed=0, size=(96, 96))
        (folder / "images" / split / "one.jpg").write_bytes(tf.io.encode_jpeg(one.image).numpy())
        mask = tf.cast(one.semantic > 0, tf.uint8)[..., tf.newaxis]
        (folder / "masks" / split / "one.png").write_bytes(tf.io.encode_png(mask).numpy())


def commands(document):
    """A document's command lines, in order, those that end in a backslash joined."""
    text = "\n".join(block for language, block in examples.blocks(document) if language in ("", "bash"))
    lines = [line.partition("  #")[0].strip() for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith(ELSEWHERE)]


def smoke(line):
    """A command at `smoke` size: its images are then drawn ones, so a path to photos has no place."""
    words = shlex.split(line)
    assert words[:2] == [".venv/bin/python", "-m"], line
    made = [sys.executable, "-m"]
    for word in words[2:]:
        if word.startswith("--config=experiments/configs/"):
            word = word.replace("experiments/configs", str(ROOT / "experiments" / "configs")) + ":smoke"
        if not word.startswith("--config.source.path="):
            made.append(word)
    return made


def test_the_documents_hold_blocks():
    assert sum(len(commands(document)) for document in DOCUMENTS.values()) >= 15
    text = "\n".join(DOCUMENTS.values())
    assert not [long for long in examples.SHORTER if long not in text]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [name for name, document in DOCUMENTS.items() if commands(document)])
def test_commands(name, tmp_path, golden):
    blood_cells(tmp_path / "BCCD")
    field(tmp_path / "field")
    if any("published" in line or ".pth" in line for line in commands(DOCUMENTS[name])):
        given = golden("pixpro/c_pixpro_t1_64_in.npz")
        pth.write(tmp_path / "pixpro_base_r50_400ep.pth", authors_state.published(given))
    for line in commands(DOCUMENTS[name]):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(smoke(line), cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, f"{line}\n{run.stdout[-1000:]}\n{run.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, document in DOCUMENTS.items() if "```python" in document])
def test_python_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert examples.run(DOCUMENTS[name], name) == DOCUMENTS[name].count("```python")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks(path, tmp_path, monkeypatch):
    """Each notebook runs from its first cell to its last; they set their own size by SMOKE."""
    import nbclient
    import nbformat

    monkeypatch.setenv("SMOKE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    errors = [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert not errors


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
