"""Model Garden's evaluator against direct pycocotools calls, Pascal VOC's against hand-counted cases, mean IoU."""

import json

import numpy as np
import pytest
import tensorflow as tf
from official.vision.ops import mask_ops
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tf_pixpro.transfer import average_precision


def written(path, boxes, size=(100, 100), images=1):
    """An annotation file; boxes are (image, category, x, y, width, height, difficult)."""
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": [x, y, width, height],
            "area": width * height,
            "iscrowd": 0,
            "difficult": difficult,
        }
        for number, (image, category, x, y, width, height, difficult) in enumerate(boxes, 1)
    ]
    listed = [{"id": number, "height": size[0], "width": size[1]} for number in range(1, images + 1)]
    categories = [{"id": number, "name": str(number)} for number in sorted({box[1] for box in boxes})]
    path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": categories}))
    return str(path)


def batch(number, boxes, classes, confidence, size, scale=1.0, masks=None):
    """What a task gives its evaluator for one image; boxes are (x, y, width, height) in the image's own pixels."""
    boxes = np.array(boxes, np.float32).reshape(1, -1, 4)
    corners = np.stack([boxes[..., 1], boxes[..., 0], boxes[..., 1] + boxes[..., 3], boxes[..., 0] + boxes[..., 2]], -1)
    info = np.array([[size, size, (scale, scale), (0, 0)]], np.float32)
    predictions = {
        "detection_boxes": tf.constant(corners * scale),
        "detection_classes": tf.constant([classes], tf.int32),
        "detection_scores": tf.constant([confidence], tf.float32),
        "num_detections": tf.constant([len(classes)]),
        "source_id": tf.constant([number], tf.int64),
        "image_info": tf.constant(info),
    }
    if masks is not None:
        predictions["detection_masks"] = tf.constant(masks[None], tf.float32)
    return {"source_id": tf.constant([number], tf.int64)}, predictions


def shaken(owner, number, random):
    """Detections of an image: its objects with moved boxes, some of another class, and false alarms."""
    boxes, classes = [], []
    for annotation in owner.loadAnns(owner.getAnnIds(number, iscrowd=False)):
        x, y, width, height = annotation["bbox"]
        for _ in range(random.integers(0, 3)):
            moved = np.array([x, y, width, height]) + random.normal(0, 0.08, 4) * np.array(
                [width, height, width, height]
            )
            boxes.append([*moved[:2], *np.maximum(moved[2:], 1)])
            classes.append(annotation["category_id"] if random.random() < 0.8 else 1)
    boxes.append([5, 5, 50, 40])
    classes.append(18)
    return np.float32(boxes), classes, np.float32(random.random(len(classes)))


def test_boxes_score_as_pycocotools_scores_them(shared_data):
    path = str(shared_data("coco_sub") / "annotations" / "instances_val.json")
    owner, random = COCO(path), np.random.default_rng(0)
    evaluator = average_precision.coco_scores("coco", path, masks=False)
    results, most = [], 60
    for image in owner.loadImgs(sorted(owner.getImgIds())):
        boxes, classes, confidence = shaken(owner, image["id"], random)
        results += [
            {"image_id": image["id"], "category_id": c, "bbox": box.tolist(), "score": float(s)}
            for box, c, s in zip(boxes, classes, confidence)
        ]
        rest = most - len(classes)  # padded as detectors pad
        padded = np.concatenate([boxes, np.zeros((rest, 4), np.float32)])
        size = (image["height"], image["width"])
        evaluator.update_state(
            *batch(image["id"], padded, classes + [0] * rest, [*confidence, *[0.0] * rest], size, 0.5)
        )
    plain = COCOeval(owner, owner.loadRes(results), "bbox")
    plain.evaluate()
    plain.accumulate()
    plain.summarize()
    ours = evaluator.result()
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "ARmax1", "ARmax10", "ARmax100", "ARs", "ARm", "ARl"]
    np.testing.assert_allclose([ours[name] for name in names], plain.stats, atol=1e-6)
    assert 0.1 < ours["AP"] < 0.9


def test_masks_score_as_pycocotools_scores_them(shared_data):
    path = str(shared_data("coco_sub") / "annotations" / "instances_val.json")
    owner = COCO(path)
    evaluator, random = average_precision.coco_scores("coco", path, masks=True), np.random.default_rng(0)
    results = []
    for image in owner.loadImgs(sorted(owner.getImgIds())[:8]):
        boxes, classes, masks, size = [], [], [], (image["height"], image["width"])
        for annotation in owner.loadAnns(owner.getAnnIds(image["id"], iscrowd=False))[:10]:
            x, y, width, height = (round(value) for value in annotation["bbox"])
            if min(width, height) < 8:
                continue
            boxes.append([x, y, width, height])
            classes.append(annotation["category_id"])
            # Logits of a mask that fills its box but for one corner, of another size each time.
            masks.append(np.where(np.add.outer(np.arange(28), np.arange(28)) < random.integers(0, 30), -1.0, 1.0))
        rest = 10 - len(boxes)  # padded as detectors pad
        padded = (boxes + [[0, 0, 0, 0]] * rest, classes + [0] * rest, [0.9] * len(boxes) + [0.0] * rest)
        evaluator.update_state(*batch(image["id"], *padded, size, masks=np.array(masks + [np.zeros((28, 28))] * rest)))
        results += [
            {"image_id": image["id"], "category_id": c, "score": 0.9, "segmentation": _pasted(mask, box, size)}
            for mask, box, c in zip(masks, boxes, classes)
        ]
    plain = COCOeval(owner, owner.loadRes(results), "segm")
    plain.params.imgIds = sorted(owner.getImgIds())[:8]
    plain.evaluate()
    plain.accumulate()
    plain.summarize()
    ours = evaluator.result()
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "ARmax1", "ARmax10", "ARmax100", "ARs", "ARm", "ARl"]
    np.testing.assert_allclose([ours[f"mask_{name}"] for name in names], plain.stats, atol=1e-6)
    assert 0.1 < plain.stats[1] < 0.9


def _pasted(logits, box, size):
    """Run lengths of a mask pasted into its image as in Model Garden: where the resized logits are positive."""
    whole = mask_ops.paste_instance_masks(np.float32(logits)[None], np.float32([box]), *size)[0] > 0
    outline = mask.encode(np.asfortranarray(whole, np.uint8))
    return {"size": outline["size"], "counts": outline["counts"].decode()}


def test_pascal_by_hand():
    # Five objects of one class in three images, one of them difficult. Detections from the surest on:
    truth = {
        1: [(0, 0, 10, 10, False), (20, 0, 30, 10, False)],
        2: [(0, 0, 10, 10, False), (20, 20, 40, 40, True)],
        3: [(0, 0, 10, 10, False)],
    }
    found = [
        (0.9, 1, (0, 0, 10, 10)),  # hit: precision 1/1, recall 1/4
        (0.8, 1, (1, 0, 10, 10)),  # the same object again: a false alarm
        (0.7, 2, (20, 20, 40, 40)),  # difficult: not counted at all
        (0.6, 2, (0, 0, 10, 5)),  # IoU exactly 0.5: hit, precision 2/3, recall 2/4
        (0.5, 4, (0, 0, 10, 10)),  # an image without objects: false alarm
        (0.4, 3, (0, 0, 10, 12)),  # IoU 10/12: hit, precision 3/5, recall 3/4
    ]
    # Area under the falling envelope: 1/4 * 1 + 1/4 * 2/3 + 1/4 * 3/5 + 1/4 * 0.
    assert average_precision.voc_average_precision(truth, found) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4, abs=1e-12)
    # Recalls 0, .1, .2 -> 1; .3, .4, .5 -> 2/3; .6, .7 -> 3/5; .8, .9, 1 -> 0.
    eleven = average_precision.voc_average_precision(truth, found, eleven_points=True)
    assert eleven == pytest.approx((3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11, abs=1e-12)
    # At 0.75 the fourth detection is a false alarm: precisions 1 and 2/5 at recalls 1/4 and 2/4.
    assert average_precision.voc_average_precision(truth, found, 0.75) == pytest.approx((1 + 2 / 5) / 4, abs=1e-12)
    assert np.isnan(average_precision.voc_average_precision({1: [(0, 0, 1, 1, True)]}, found))
    assert average_precision.voc_average_precision(truth, []) == 0


def test_pascal_evaluator(tmp_path):
    boxes = [(1, 1, 0, 0, 10, 10, 0), (1, 2, 50, 50, 20, 20, 0), (2, 1, 0, 0, 10, 10, 0), (2, 2, 30, 30, 10, 10, 1)]
    path = written(tmp_path / "a.json", boxes, images=2)
    evaluator = average_precision.coco_scores("voc", path, masks=False)
    # Class 1: one true positive of two objects, then a false positive: AP 1/2.
    # Class 2: a true positive of IoU 0.8 and a difficult object: AP 1 up to threshold 0.8, then 0.
    size = (100, 100)
    evaluator.update_state(
        *batch(1, [[0, 0, 10, 10], [50, 50, 20, 16], [0, 0, 0, 0]], [1, 2, 0], [0.9, 0.8, 0.0], size, 0.5)
    )
    evaluator.update_state(
        *batch(2, [[40, 40, 5, 5], [30, 30, 10, 10], [0, 0, 0, 0]], [1, 2, 1], [0.7, 0.9, 0.0], size)
    )
    found = evaluator.result()
    assert found["AP50"] == pytest.approx(0.75) and found["AP75"] == pytest.approx(0.75)
    # Thresholds .5, .55, ..., .8 (seven; 0.8 itself within float32's rounding) and three above.
    assert found["AP"] == pytest.approx((7 * 0.75 + 3 * 0.25) / 10, abs=0.051)
    with pytest.raises(ValueError, match="Received 'voc', masks=True"):
        average_precision.coco_scores("voc", path, masks=True)
    with pytest.raises(ValueError, match="needs annotation_file"):
        average_precision.coco_scores("coco", "", masks=False)


def test_mean_iou_by_hand():
    # Class 0: 3 right of 3 + 1 + 0; class 1: 2 right of 2 + 0 + 1; class 2 does not occur.
    confusion = [[3, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert average_precision.mean_of_present(confusion) == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert average_precision.mean_of_present(np.zeros((2, 2))) == 0
