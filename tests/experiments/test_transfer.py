"""The transfer binary: every config is the protocol it names, mistakes in one line, each kind trains, is scored, saved,
resumed, served."""

import importlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from experiments import pretrain, transfer
from experiments.builders import detector
from experiments.configs.pretrain import pixpro_r18_photos
from experiments.configs.transfer import (
    camvid_fcn_r18,
    coco_mask_rcnn_r50_c4_1x,
    coco_mask_rcnn_r50_fpn_1x,
    masks_fcn_r18,
    voc_faster_rcnn_r50_c4_24k,
)
from experiments.launch import session
from experiments.launch.schedule import StepSchedule
from tf_evonorm.backbones import resnet
from tf_evonorm.mistakes import Mistake
from tf_pixpro import save_backbone
from tf_pixpro.transfer import tasks
from tf_pixpro.transfer.models import c4

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = sorted(
    path.stem
    for kind in ("voc", "coco", "cityscapes", "bccd", "camvid")
    for path in (ROOT / "experiments" / "configs" / "transfer").glob(f"{kind}_*.py")
)


def config_of(name, variant="smoke"):
    return importlib.import_module(f"experiments.configs.transfer.{name}").get_config(variant)


def params_of(config):
    return detector.task_params(config, session.build(StepSchedule, "schedule", config.schedule))


def run(config, workdir, mode="train_and_eval", strategy=None):
    started = session.Session(config, str(workdir), mode, strategy or tf.distribute.get_strategy())
    return transfer.main(started)


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_understood(name):
    config = config_of(name, "")
    params_of(config)
    detector.optimizer(config, session.build(StepSchedule, "schedule", config.schedule))
    with pytest.raises(ValueError, match="'tiny'"):
        config_of(name, "tiny")
    small = config_of(name)
    assert small.schedule.steps == 4 and small.model.num_classes == 9


def test_the_protocols():
    # Source: detectron2's configurations that the authors' README runs.
    fpn = coco_mask_rcnn_r50_fpn_1x.get_config()
    params = params_of(fpn)
    assert (fpn.schedule.batch, fpn.schedule.rate, fpn.schedule.steps, fpn.schedule.drops) == (
        16,
        0.02,
        90000,
        (60000, 80000),
    )
    rate = session.build(StepSchedule, "schedule", fpn.schedule).learning_rate
    steps = [0, 1000, 59999, 60000, 80000]
    np.testing.assert_allclose([float(rate(s)) for s in steps], [2e-5, 0.02, 0.02, 0.002, 0.0002], rtol=1e-5)
    assert params.losses.l2_weight_decay == 1e-4 and fpn.precise_norm_steps == 200 and fpn.norm_act.synchronized
    model = params.model
    assert (model.min_level, model.max_level, model.anchor.anchor_size * 2**model.min_level) == (2, 6, 32)
    assert (model.detection_head.num_convs, model.detection_head.fc_dims, model.mask_head.num_convs) == (4, 1024, 4)
    assert (model.roi_sampler.num_sampled_rois, model.roi_sampler.foreground_fraction) == (512, 0.25)
    voc = voc_faster_rcnn_r50_c4_24k.get_config()
    assert (voc.schedule.steps, voc.schedule.drops, voc.schedule.warmup_steps) == (24000, (18000, 22000), 100)
    model = params_of(voc).model
    assert (model.roi_generator.num_proposals, model.roi_generator.test_num_proposals, model.num_classes) == (
        2000,
        1000,
        21,
    )
    assert (model.roi_aligner.crop_size, model.include_mask, voc.scores.kind) == (14, False, "voc")


def test_anchors_of_c4_are_octaves():
    config = coco_mask_rcnn_r50_c4_1x.get_config()
    model = params_of(config).model
    boxes = c4.octave_anchors((64, 64), model.anchor)["4"].numpy()[0, 0].reshape(5, 3, 4)
    height, width = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    np.testing.assert_allclose(height[:, 1], [32, 64, 128, 256, 512])  # detectron2's anchors of level 4
    np.testing.assert_allclose(width / height, [[0.5, 1, 2]] * 5, rtol=1e-5)
    assert detector.KINDS[config.model.kind].task is tasks.MaskRCNNC4Task


def test_mistakes_are_reported(tmp_path):
    config = camvid_fcn_r18.get_config()
    wrong = {
        r"config\.model\.kind must be one of": {"model": {"kind": "yolo"}},
        r"Model Garden's keys": {"losses": {"l3": 1}},
        r"input_path must name records": {"train_data": {"input_path": ""}},
    }
    for message, change in wrong.items():
        changed = config.copy_and_resolve_references()
        for section, values in change.items():
            with changed.unlocked():
                changed[section].update(values)
        with pytest.raises(ValueError, match=message):
            params_of(changed)
    (tmp_path / "train.json").write_text(json.dumps({"categories": {"0": "sky", "11": "car"}}))
    few = camvid_fcn_r18.get_config()
    few.train_data.input_path = str(tmp_path / "train-*.tfrecord")
    with pytest.raises(ValueError, match=r"Received 11, .*config\.train_data have classes up to 11\. Pass 12"):
        params_of(few)
    with pytest.raises(Mistake, match=r"^config\.schedule: steps must be larger than warmup_steps"):
        session.build(StepSchedule, "schedule", {**config.schedule, "steps": 30})
    config.norm_act.reach = "half"
    with pytest.raises(ValueError, match=r"must be backbone or all\. Received 'half'"):
        detector.detector(config, params_of(config))


def test_own_masks_bring_their_number_of_classes(tmp_path):
    config = masks_fcn_r18.get_config()
    config.records = str(tmp_path)
    with pytest.raises(Mistake, match=r"num_classes of 0 means .* Received .*train-\*\.tfrecord, with no list"):
        params_of(config)
    for name, last in (("train", "3"), ("val", "4")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"categories": {"0": "soil", last: "weed"}}))
    params = params_of(config)
    assert params.model.num_classes == 5
    assert params.validation_data.input_path == str(tmp_path / "val-*.tfrecord")
    assert params.validation_data.resize_eval_groundtruth  # or an image larger than a padded size would end the run
    assert params_of(masks_fcn_r18.get_config("smoke")).model.num_classes == 9


def test_a_segmenter_trains_resumes_and_is_served(tmp_path, monkeypatch):
    config = camvid_fcn_r18.get_config("smoke")
    pretrained = resnet(18, input_size=(None, None, 3), width=0.125, blocks=(1, 1, 1, 1), output_stride=16)
    config.init = save_backbone(pretrained, str(tmp_path / "init"))
    _, results = run(config, tmp_path / "run")
    # A mean over classes that occur, of which the background is learnt first.
    shares = [results[f"iou/{number}"] for number in range(9)]
    assert 0 < results["mean_iou"] <= max(shares) <= 1
    weights = tf.train.load_checkpoint(str(tmp_path / "run"))
    assert weights.get_tensor("optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE") == 4
    config.schedule.steps = 6
    second, _ = run(config, tmp_path / "run", "train")
    tf.io.gfile.rmtree(str(tmp_path / "run" / "best"))  # so that the latest one is served
    assert tf.train.latest_checkpoint(str(tmp_path / "run")).endswith("ckpt-6")
    summary = json.loads((tmp_path / "run" / "records" / "validation.json").read_text())
    assert summary["exif"] is True
    with monkeypatch.context() as patched:  # records that were prepared with --exif=ignore
        patched.setattr(detector.records, "summary_of", lambda path: {**summary, "exif": False})
        run(config, tmp_path / "run", "export")
    assert json.loads((tmp_path / "run" / "saved_model" / "labels.json").read_text())["exif"] is False
    served = tf.saved_model.load(str(tmp_path / "run" / "saved_model"))
    image = np.random.default_rng(0).integers(0, 255, (1, 128, 128, 3), np.uint8)
    (encoded,) = [tf.io.encode_png(image[0]).numpy()]
    by_bytes = served.signatures["image_bytes"](tf.constant([encoded]))["logits"]
    by_tensor = served.signatures["image_tensor"](tf.constant(image))["logits"]
    example = tf.train.Example()
    example.features.feature["image/encoded"].bytes_list.value.append(encoded)
    by_example = served.signatures["tf_example"](tf.constant([example.SerializeToString()]))["logits"]
    np.testing.assert_array_equal(by_bytes, by_tensor)
    np.testing.assert_array_equal(by_bytes, by_example)
    mean, deviation = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
    logits = second(tf.constant((image - mean) / deviation, tf.float32), training=False)["logits"]
    np.testing.assert_allclose(by_tensor, tf.image.resize(logits, [128, 128]), atol=1e-4)
    with open(tmp_path / "run" / "saved_model" / "labels.json") as file:
        assert json.load(file)["labels"]["1"] == "disc_stripes"


# One of each kind, and each part that only one config has; the others take minutes each and are run by `make thorough`.
KINDS = (
    "bccd_retinanet_r18",
    "cityscapes_fcn_r50",
    "coco_mask_rcnn_evonorm_r50_fpn",
    "coco_mask_rcnn_spinenet96",
    "voc_faster_rcnn_r50_c4_24k",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in KINDS else pytest.mark.thorough) for name in NAMES]
)
def test_every_config_trains_on_one_and_two_replicas_and_is_served(tmp_path, two_replicas, name):
    config = config_of(name)
    config.schedule.steps = 2
    run(config, tmp_path, "train")
    config.schedule.steps = 4
    _, results = run(config, tmp_path, strategy=two_replicas)
    score = "mean_iou" if config.model.kind == "segmenter" else "AP50"
    assert 0 <= results[score] <= 1 and np.isfinite(results["validation_loss"])
    run(config, tmp_path, "export")
    served = tf.saved_model.load(str(tmp_path / "saved_model"))
    found = served.signatures["image_tensor"](tf.zeros([1, 128, 128, 3], tf.uint8))
    assert "logits" in found if config.model.kind == "segmenter" else "detection_boxes" in found
    assert ("detection_masks" in found) == bool(config.model.get("include_mask", config.model.kind.startswith("mask")))


@pytest.mark.slow
def test_a_served_detector_draws_what_it_finds(tmp_path):
    config = config_of("bccd_retinanet_r18")
    run(config, tmp_path)
    run(config, tmp_path, "export")
    images = tmp_path / "records" / "validation"
    for mask in images.glob("*_classes.png"):
        mask.unlink()
    command = ["-m", "experiments.predict", f"--saved_model={tmp_path / 'saved_model'}", f"--images={images}"]
    command += [f"--output={tmp_path / 'out'}", f"--annotations={tmp_path / 'records' / 'validation_annotations.json'}"]
    ended = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 4
    with open(tmp_path / "out" / "predictions.json") as file:
        assert {entry["image_id"] for entry in json.load(file)} <= {1, 2, 3, 4}


SERVED = """
import sys
import numpy as np
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["image_tensor"]
np.save(sys.argv[3], served(tf.constant(np.load(sys.argv[2])))["logits"])
ours = ("tf_pixpro", "tf_evonorm", "official", "experiments")
print(sorted(name for name in sys.modules if name.split(".")[0] in ours))
"""


@pytest.mark.slow
def test_the_chain(tmp_path):
    """Pre-training leaves a backbone, transfer reads it whole, learns, is exported, and another process says the same
    without us."""
    pretraining = pixpro_r18_photos.get_config("smoke")
    pretrained, _ = pretrain.main(session.Session(pretraining, str(tmp_path / "pretrain"), "train"))
    config = camvid_fcn_r18.get_config("smoke")
    config.init = str(tmp_path / "pretrain" / "backbone")
    schedule = session.build(StepSchedule, "schedule", config.schedule)
    folder = str(tmp_path / "records")
    drawn = session.build(detector.drawn_records, "scenes", config.scenes, config=config, folder=folder)
    task = detector.make_task(drawn, schedule, params_of(drawn))
    task.initialize(task.build_model())
    for one, other in zip(pretrained.encoder.weights, task.encoder.weights):
        np.testing.assert_array_equal(one, other)
    model, _ = run(config, tmp_path / "run", "train")
    run(config, tmp_path / "run", "export")
    image = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
    np.save(tmp_path / "image.npy", image)
    (tmp_path / "served.py").write_text(SERVED)
    paths = [str(tmp_path / name) for name in ("served.py", "run/saved_model", "image.npy", "logits.npy")]
    ended = subprocess.run([sys.executable, *paths], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0 and ended.stdout.strip() == "[]", ended.stdout + ended.stderr
    mean, deviation = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
    logits = model(tf.constant((image - mean) / deviation, tf.float32), training=False)["logits"]
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), tf.image.resize(logits, [128, 128]), atol=1e-4)
