"""The converting binary: each layout to records, a share of one, and arguments that belong to another layout."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.prepare import prepare
from tf_evonorm.mistakes import Mistake

ROOT = Path(__file__).resolve().parents[2]


def test_each_layout(shared_data, tmp_path):
    coco, bccd, camvid = (shared_data(name) for name in ("coco_sub", "bccd_sub", "camvid_sub"))
    images, annotations = str(coco / "images" / "val"), str(coco / "annotations" / "instances_val.json")
    common = {"output": str(tmp_path), "progress": False}
    # Counts of the data sets' own descriptions.
    summary = prepare("coco", "val", images=images, annotations=annotations, share=0.3, name="part", **common)
    assert 1 <= summary["images"] < 20
    summary = prepare(
        "voc", "val", root=str(bccd), names=["RBC", "WBC", "Platelets"], strict=True, name="cells", **common
    )
    assert (summary["images"], summary["objects"], summary["categories"][3]) == (40, 563, "Platelets")
    assert prepare("camvid", "val", root=str(camvid), strict=True, name="streets", **common)["images"] == 16
    both = prepare("voc", "val", root=[str(bccd)] * 2, names=["RBC", "WBC", "Platelets"], name="twice", **common)
    numbers = [number for shard in both["shards"].values() for number in shard["numbers"]]
    assert sorted(numbers) == list(range(1, 81))
    with open(tmp_path / "cells_annotations.json") as file:
        assert len(json.load(file)["annotations"]) == 563


def test_arguments_of_another_layout(tmp_path):
    with pytest.raises(
        Mistake, match=r"--format=coco takes --annotations and --images, --names if need be\. Received --root"
    ):
        prepare("coco", "val", str(tmp_path), root="x")
    with pytest.raises(Mistake, match=r"--format=camvid takes --root\. Received --root --names"):
        prepare("camvid", "val", str(tmp_path), root="x", names=["a"])


@pytest.mark.slow
def test_as_a_program(shared_data, tmp_path):
    command = [sys.executable, "-m", "experiments.prepare", "--format=camvid", f"--root={shared_data('camvid_sub')}"]
    run = subprocess.run(
        [*command, "--split=val", f"--output={tmp_path}", "--shards=2"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert f"16 images and 0 objects into {tmp_path}: no problems" in run.stdout
    assert len(list(tmp_path.glob("val-*-of-00002.tfrecord"))) == 2
    wrong = subprocess.run([*command, "--split=test", f"--output={tmp_path}"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode != 0 and "leftImg8bit/test" in wrong.stderr and "Traceback" not in wrong.stderr
