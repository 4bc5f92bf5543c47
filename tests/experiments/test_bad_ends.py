"""Mistakes of the caller: each binary ends with one clear line and an exit code, no traceback, and nothing
half-written."""

import json
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "experiments" / "configs"
PHOTOS = f"--config={CONFIGS}/pretrain/pixpro_r18_photos.py"
SMOKE = f"{PHOTOS}:smoke"
CIFAR = f"--config={CONFIGS}/classify/evonorm_r20_cifar10.py"
CELLS = f"--config={CONFIGS}/transfer/bccd_retinanet_r18.py"
GAN = f"--config={CONFIGS}/synthesize/biggan_32_cifar10.py"
SEARCH = f"--config={CONFIGS}/search/evonorm_b_small.py"
RUN = "--workdir=run"

# Command line -> what its one line says. Paths are those of `world`; `run` and `out` are not there before.
CASES = {
    f"pretrain {RUN}": r"config",
    f"pretrain {SMOKE}": r"workdir",
    f"pretrain --config=nowhere.py {RUN}": r"nowhere\.py",
    f"pretrain --config=torn.py {RUN}": r"torn\.py|never closed|SyntaxError",
    f"pretrain {PHOTOS}:smok {RUN}": r"must be labelled, probe, smoke or none\. Received 'smok'",
    f"pretrain {SMOKE} {RUN} --config.backbone.dept=50": r"dept",
    f"pretrain {SMOKE} {RUN} --config.schedule.batch=many": r"many",
    f"pretrain {SMOKE} {RUN} --config.backbon.depth=50": r"backbon",
    f"pretrain {SMOKE} --wrokdir=run": r"wrokdir",
    f"pretrain {SMOKE} {RUN} --mode=fit": r"fit",
    f"pretrain {SMOKE} --workdir=file.txt": r"file\.txt",
    f"pretrain {SMOKE} --workdir=/proc/run": r"/proc/run",
    f"pretrain {SMOKE} {RUN} --mode=eval": r"needs a checkpoint",
    f"pretrain {SMOKE} {RUN} --config.runtime.distribution_strategy=threads": r"threads",
    f"pretrain {SMOKE} {RUN} --config.runtime.mixed_precision_dtype=float13": r"float13",
    f"pretrain {SMOKE} {RUN} --config.model.level=7": r"level",
    f"pretrain {SMOKE} {RUN} --config.backbone.depth=19": r"19",
    f"pretrain {SMOKE} {RUN} --config.schedule.batch=0": r"batch",
    f"pretrain {SMOKE} {RUN} --config.schedule.epochs=-1.0": r"epochs|steps",
    f"pretrain {SMOKE} {RUN} --config.optimizer.name=adamm": r"adamm",
    f"pretrain {SMOKE} --workdir=other": r"holds one experiment",
    f"pretrain {SMOKE} --workdir=torn_run": r"torn_run|checkpoint",
    f"pretrain {PHOTOS} {RUN} --config.source.path=nowhere.zip": r"nowhere\.zip",
    f"pretrain {PHOTOS} {RUN}": r"config\.source: images come from a folder",
    f"pretrain {PHOTOS} {RUN} --config.source.path=empty": r"empty",
    f"pretrain {PHOTOS} {RUN} --config.source.path=texts": r"texts",
    f"pretrain {PHOTOS} {RUN} --config.source.path=torn.zip": r"torn\.zip",
    f"pretrain {PHOTOS} {RUN} --config.source.path=small.zip": r"small|pixel",
    f"pretrain {PHOTOS} {RUN} --config.source.path=tfds:no_such_set": r"no_such_set",
    f"pretrain {PHOTOS} {RUN} --config.source.path=torn.tfrecord": r"torn\.tfrecord",
    f"pretrain {PHOTOS} {RUN} --config.source.path=broken --config.schedule.batch=8 --config.views.max_bad_share=0.0": (
        r"at most 0\.00% of the images may be undecodable\. Received \d of"
    ),
    f"pretrain {PHOTOS}:labelled {RUN} --config.source.path=broken": r"as in train/CLASS",
    f"classify {CIFAR} {RUN} --config.source.path=nowhere": r"nowhere",
    f"classify {CIFAR}:smoke {RUN} --config.norm_act.name=evonorm_z9": r"evonorm_z9",
    f"classify {CIFAR}:smoke {RUN} --config.backbone.name=vgg": r"vgg",
    f"transfer {CELLS} {RUN} --config.train_data.input_path=": r"input_path",
    f"transfer {CELLS} {RUN} --config.train_data.input_path=nowhere-*": (
        r"nowhere-\*, which matches no file.*experiments\.prepare"
    ),
    f"transfer {CELLS}:smoke {RUN} --config.init=nowhere": r"nowhere",
    f"transfer {CELLS}:smoke {RUN} --config.norm_act.name=bn": r"'bn'",
    f"transfer {CELLS}:smoke {RUN} --mode=export": r"the folder of a run.*without config\.json",
    "prepare --format=coco --split=val --output=out --root=empty": r"takes --annotations and --images",
    "prepare --format=pascal --split=val --output=out": r"pascal",
    "prepare --format=voc --split=val --output=out --root=nowhere": r"nowhere",
    "prepare --format=coco --split=val --output=out --images=empty --annotations=torn.json": r"torn\.json",
    "prepare --format=coco --split=val --output=out --images=empty --annotations=texts/a.json": r"a\.json",
    "predict --saved_model=nowhere --images=empty --output=out": r"nowhere",
    "predict --saved_model=empty --images=empty --output=out": r"empty",
    "export --workdir=empty --output=out": r"config\.json",
    "export --output=out": r"workdir",
    "export --workdir=other --output=out": r"no views",
    f"export --checkpoint=nowhere {SMOKE} --output=out --image_size=big": r"image_size",
    f"export --checkpoint=nowhere {SMOKE} --output=out": r"nowhere",
    f"export --checkpoint=nowhere {SMOKE} --output=texts": r"texts",
    "convert --input=nowhere.pth --output=out": r"nowhere\.pth",
    "convert --input=file.txt --output=out": r"file\.txt",
    "convert --input=torn.zip --output=out": r"torn\.zip",
    f"search {SEARCH} {RUN} --config.source.path=nowhere": r"nowhere",
    f"search {SEARCH} {RUN} --mode=evolve": r"evolve",
    f"search {SEARCH} --workdir=empty --mode=rerank": r"the folder of a search.*empty",
    f"search {SEARCH} {RUN} --mode=report": r"the folder of a search.*run",
    f"search {SEARCH} {RUN} --mode=dump": r"the folder of a search.*run",
    f"search {SEARCH} {RUN} --mode=restore": r"--mode=restore reads a file of --mode=dump.*study.json",
    f"search {SEARCH}:smoke {RUN} --config.study.url=mysql+nothing://x": r"mysql",
    **{
        f"{program} {config}:smoke {RUN} --tpu=local": r"--tpu must be the name or address of a TPU.*'local'"
        for program, config in {"pretrain": PHOTOS, "classify": CIFAR, "transfer": CELLS, "synthesize": GAN}.items()
    },
    "demo --workdir=run --images=nowhere": r"nowhere",
    "benchmark faster": r"faster",
}

# Forks for each command line, because importing TensorFlow takes longer than any mistake.
RUNNER = """
import json, os, runpy, shlex, sys, traceback
import experiments
import tensorflow as tf
from official.core import train_lib
from official.vision.tasks import maskrcnn
results = {}
for line in json.load(open("lines.json")):
    name, *arguments = shlex.split(line)
    files = [f"{len(results)}.{kind}" for kind in ("out", "err")]
    child = os.fork()
    if not child:
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        sys.argv = [name, *arguments]
        code = 0
        try:
            runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code or 0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = sorted(name for name in ("run", "out") if os.path.exists(name))
    results[line] = {"code": code, "err": open(files[1]).read(), "left": left}
    os.system("rm -rf run out")
json.dump(results, open("results.json", "w"))
"""


def world(folder):
    """Files and folders that go wrong, each in its own way."""
    (folder / "file.txt").write_text("no folder")
    (folder / "torn.py").write_text("def get_config(:\n")
    (folder / "torn.json").write_text('{"images": [')
    for name in ("empty", "texts"):
        (folder / name).mkdir()
    (folder / "texts" / "a.jpg").write_text("not an image")
    (folder / "texts" / "a.json").write_text("[1, 2]")
    (folder / "broken").mkdir()
    for index in range(16):
        noise = np.random.default_rng(index).integers(0, 255, (96, 96, 3)).astype(np.uint8)
        encoded = tf.io.encode_jpeg(noise).numpy()
        (folder / "broken" / f"{index}.jpg").write_bytes(encoded[:-400] if index % 4 == 0 else encoded)
    with zipfile.ZipFile(folder / "small.zip", "w") as file:
        for index in range(8):
            tiny = tf.io.encode_jpeg(np.full((8, 8, 3), index, np.uint8)).numpy()
            file.writestr(f"train/a/{index}.jpg", tiny)
    (folder / "torn.zip").write_bytes((folder / "small.zip").read_bytes()[:-200])
    with tf.io.TFRecordWriter(str(folder / "whole.tfrecord")) as writer:
        writer.write(b"no example")
    (folder / "torn.tfrecord").write_bytes((folder / "whole.tfrecord").read_bytes()[:-3])
    for name in ("other", "torn_run"):
        (folder / name).mkdir()
        variable = tf.Variable(tf.zeros([1000]))
        checkpoint = tf.train.Checkpoint(variable=variable)
        tf.train.CheckpointManager(checkpoint, str(folder / name), 1, checkpoint_name="ckpt").save(1)
    (folder / "other" / "config.json").write_text(json.dumps({"seed": 1, "encoder": {"depth": 50}}))
    for file in (folder / "torn_run").glob("*.data-*"):
        file.write_bytes(file.read_bytes()[:100])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_mistake_is_one_clear_line(tmp_path):
    world(tmp_path)
    (tmp_path / "lines.json").write_text(json.dumps(list(CASES)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", RUNNER], cwd=tmp_path, env=environment)
    assert run.returncode == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == set(CASES)
    wrong = []
    for line, words in CASES.items():
        ended = results[line]
        lines = [text for text in ended["err"].splitlines() if text.strip()]
        answer = lines[-1] if lines else ""
        if (
            ended["code"] in (0, 99)
            or "Traceback" in ended["err"]
            or not re.search(words, answer)
            or "out" in ended["left"]
        ):
            wrong.append(f"{line}\n    code {ended['code']}, left {ended['left']}: {ended['err'][-600:]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_with_more_room_the_run_resumes(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    command = [sys.executable, "-W", "ignore", "-m", "experiments.pretrain", SMOKE, f"--workdir={disk}/run"]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode not in (0, 99) and "Traceback" not in run.stderr
        assert re.search(r"pretrain: .*No space left.*Free some space and start again", run.stderr.splitlines()[-1])
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        assert tf.train.latest_checkpoint(str(disk / "run"))
    finally:
        subprocess.run(["umount", disk], check=True)
