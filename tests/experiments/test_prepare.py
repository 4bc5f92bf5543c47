"""The converting binary: each layout to records, a share of one, and arguments that belong to another layout."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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


def test_names_that_other_patterns_would_match_are_changed(shared_data, tmp_path):
    root = str(shared_data("camvid_sub"))
    summary = prepare("camvid", "val", str(tmp_path), root=root, name="val-small", progress=False)
    assert "'val_small'" in summary["notes"][0] and not list(tmp_path.glob("val-*"))
    assert (tmp_path / "val_small.json").exists()


@pytest.mark.parametrize("exif, kept", [("apply", 1), ("ignore", 0)])
def test_photos_annotated_as_displayed(tmp_path, exif, kept):
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=tag)
    image = {"id": 1, "file_name": "a.jpg", "height": 8, "width": 6}
    whole = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "a.json").write_text(json.dumps(whole))
    arguments = {"images": str(tmp_path), "annotations": str(tmp_path / "a.json"), "exif": exif, "progress": False}
    if kept:
        assert prepare("coco", "train", str(tmp_path / "out"), **arguments)["images"] == 1
        return
    with pytest.raises(Mistake, match=r"image 1: an image must have the size of its annotation, \(8, 6\)"):
        prepare("coco", "train", str(tmp_path / "out"), **arguments)


@pytest.mark.slow
def test_as_a_program(shared_data, tmp_path):
    command = [sys.executable, "-m", "experiments.prepare", "--format=camvid", f"--root={shared_data('camvid_sub')}"]
    run = subprocess.run(
        [*command, "--split=val", f"--output={tmp_path}", "--shards=2"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert f"16 images with masks of 11 classes into {tmp_path}: no problems" in run.stdout
    assert len(list(tmp_path.glob("val-*-of-00002.tfrecord"))) == 2
    wrong = subprocess.run([*command, "--split=test", f"--output={tmp_path}"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode != 0 and "leftImg8bit/test" in wrong.stderr and "Traceback" not in wrong.stderr
