"""Scores: COCO's average precisions (by pycocotools, through Model Garden), Pascal VOC's, and the mean IoU."""

from __future__ import annotations

import collections

import numpy as np
from official.vision.evaluation import coco_utils
from official.vision.evaluation.coco_evaluator import COCOEvaluator

from tf_evonorm.mistakes import Mistake

KINDS = ("coco", "voc", "voc07")


def coco_scores(kind: str, annotation_file: str, masks: bool) -> COCOEvaluator:
    """An evaluator for Model Garden's detection tasks.

    Args:
      kind: 'coco'; 'voc', AP over all recalls; 'voc07', AP at eleven recalls.
      annotation_file: COCO JSON of the validation images, as written by `write_records`; image ids are integers.
      masks: whether instance masks are scored too ('coco' only).

    Raises:
      Mistake: if kind is unknown, or Pascal's is asked for masks, or there are no annotations.
    """
    if kind not in KINDS or (masks and kind != "coco"):
        raise Mistake(
            f"scores must be one of {', '.join(KINDS)}, 'coco' where masks are scored. "
            f"Received {kind!r}, masks={masks}."
        )
    if not annotation_file:
        raise Mistake(
            "evaluation needs annotation_file. Received none. "
            "Pass the SPLIT_annotations.json that lies beside the records."
        )
    if kind == "coco":
        return COCOEvaluator(annotation_file, include_mask=masks)
    return PascalEvaluator(annotation_file, eleven_points=kind == "voc07")


class PascalEvaluator(COCOEvaluator):
    """Average precision as Pascal VOC takes it: AP50, AP75 and AP, their mean over IoU thresholds 0.5, 0.55, ..., 0.95.

    Args:
      annotation_file: as in `coco_scores`; objects with 'difficult' are neither hits nor misses.
      eleven_points: the VOC2007 form: precision averaged at recalls 0, 0.1, ..., 1.

    Source: the VOC development kits (2007 and 2010); the mean over thresholds follows PixPro's detection protocol.
    """

    def __init__(self, annotation_file: str, eleven_points: bool = False):
        super().__init__(annotation_file, include_mask=False)
        self._eleven_points = eleven_points

    def evaluate(self) -> dict[str, np.float32]:
        truth: dict = collections.defaultdict(lambda: collections.defaultdict(list))
        for entry in self._coco_gt.dataset["annotations"]:
            x, y, width, height = entry["bbox"]
            box = (x, y, x + width, y + height, bool(entry.get("difficult", 0)))
            truth[entry["category_id"]][entry["image_id"]].append(box)
        found = collections.defaultdict(list)
        if self._predictions:
            for entry in coco_utils.convert_predictions_to_coco_annotations(self._predictions):
                x, y, width, height = entry["bbox"]
                if width > 0 and height > 0:
                    found[int(entry["category_id"])].append(
                        (float(entry["score"]), int(entry["image_id"]), (x, y, x + width, y + height))
                    )
        thresholds = [0.5 + 0.05 * i for i in range(10)]
        table = np.array(
            [[voc_average_precision(truth[c], found[c], t, self._eleven_points) for c in truth] for t in thresholds]
        )
        with np.errstate(invalid="ignore"):
            per_threshold = np.array(
                [row[~np.isnan(row)].mean() if (~np.isnan(row)).any() else np.nan for row in table]
            )
        return {
            "AP": np.float32(per_threshold.mean()),
            "AP50": np.float32(per_threshold[0]),
            "AP75": np.float32(per_threshold[5]),
        }


def voc_average_precision(truth: dict, found: list, threshold: float = 0.5, eleven_points: bool = False) -> float:
    """Average precision of one class.

    Args:
      truth: image id -> list of (x1, y1, x2, y2, difficult), pixels.
      found: list of (score, image id, (x1, y1, x2, y2)).
      threshold: IoU from which on a box is found.
      eleven_points: as in `PascalEvaluator`.

    Returns:
      The average precision; NaN if there is nothing to find.

    Source: VOCevaldet.m of the development kits. A detection is matched to the object that it overlaps
      most; a second detection of the same object is a false positive. Boxes here are continuous: the kit's added pixel
      is already in them.
    """
    wanted = sum(not box[4] for boxes in truth.values() for box in boxes)
    if not wanted:
        return float("nan")
    taken, hits = set(), []
    for _, image, box in sorted(found, key=lambda one: -one[0]):
        overlaps = [_iou(box, other[:4]) for other in truth.get(image, ())]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best < 0 or overlaps[best] < threshold:
            hits.append(False)
        elif not truth[image][best][4]:
            hits.append((image, best) not in taken)
            taken.add((image, best))
    right = np.cumsum(np.array(hits, bool))
    recall, precision = right / wanted, right / np.arange(1, len(hits) + 1)
    if eleven_points:
        return float(np.mean([precision[recall >= r - 1e-12].max(initial=0.0) for r in np.linspace(0, 1, 11)]))
    highest = np.maximum.accumulate(precision[::-1])[::-1]  # from here on
    return float(np.sum(np.diff(recall, prepend=0.0) * highest))


def _iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both)


def mean_of_present(confusion: np.ndarray) -> float:
    """Mean IoU over the classes that occur in labels or predictions.

    Args:
      confusion: [classes, classes], labels by predictions, counts.
    """
    confusion = np.asarray(confusion, np.float64)
    hits, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return float(np.mean(hits[union > 0] / union[union > 0])) if (union > 0).any() else 0.0
