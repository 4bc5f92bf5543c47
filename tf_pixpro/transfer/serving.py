"""A trained detector or segmenter as a SavedModel, by Model Garden's serving modules; it runs without this project."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import tensorflow as tf
from official.core import config_definitions
from official.vision.configs import semantic_segmentation
from official.vision.serving import detection
from official.vision.serving import semantic_segmentation as segmentation

from tf_evonorm.atomic import atomic_path
from tf_pixpro.transfer.models import c4
from tf_pixpro.views import decode

SIGNATURES = ("image_bytes", "image_tensor", "tf_example")


class _OneDecoder:
    """Model Garden's serving modules with the decoder of records and training, for images as displayed or as stored."""

    exif = True

    def _decode_image(self, encoded_image_bytes):
        return decode.decode_image(encoded_image_bytes, exif=self.exif, pillow=False)


class _Detection(_OneDecoder, detection.DetectionModule):
    def _build_anchor_boxes(self):
        if isinstance(self.model, c4.MaskRCNNC4):
            return self.model.anchor_boxes(self._padded_size)
        return super()._build_anchor_boxes()


class _Segmentation(_OneDecoder, segmentation.SegmentationModule):
    pass


def export_transfer(
    model: tf.keras.Model,
    params: config_definitions.TaskConfig,
    folder: str,
    checkpoint: str | None = None,
    labels: Mapping[int, str] | None = None,
    exif: bool = True,
) -> str:
    """Writes a SavedModel.

    Args:
      model: of `tf_pixpro.transfer.models.detectors` or `c4`.
      params: Model Garden's task configuration that it was built from.
      folder: to be made.
      checkpoint: of a run, or a folder whose latest one is taken, that fills the model first; None serves the weights
        as they are.
      labels: class number -> name, for drawings; they lie beside the model as labels.json.
      exif: whether encoded images are rotated upright by their EXIF orientation, as records are by default.

    Returns:
      The folder. Signatures: image_bytes (also serving_default) [B] string of images of one size, image_tensor
      [B, H, W, 3] uint8 and tf_example [B] string. A detector gives detection_boxes [B, N, 4] (y1, x1, y2, x2 in the
      resized image), detection_scores, detection_classes, num_detections, detection_masks if it has masks, image_info
      [B, 4, 2]; a segmenter logits [B, H, W, classes] of the resized image and image_info, whose third row is the
      factor of the resize.

    Raises:
      FileExistsError: if the folder is there.
      FileNotFoundError: if there is no checkpoint.
      AssertionError: if the checkpoint lacks a variable of the model.
    """
    if tf.io.gfile.exists(folder):
        raise FileExistsError(f"folder must be a new one. Received {folder!r}. Take another or remove it.")
    if checkpoint is not None:
        found = tf.train.latest_checkpoint(checkpoint) if tf.io.gfile.isdir(checkpoint) else checkpoint
        if not found:
            raise FileNotFoundError(
                f"checkpoint must be one or a folder with one. Received {checkpoint!r}. Train first."
            )
        tf.train.Checkpoint(model=model).read(found).expect_partial().assert_existing_objects_matched()
    segments = isinstance(params, semantic_segmentation.SemanticSegmentationTask)
    module = (_Segmentation if segments else _Detection)(
        config_definitions.ExperimentConfig(task=params),
        batch_size=None,
        input_image_size=list(params.validation_data.output_size if segments else params.model.input_size[:2]),
        model=model,
    )
    module.exif = exif
    signatures = module.get_inference_signatures({name: name for name in SIGNATURES})
    served = tf.Module(name="transfer")  # no Keras object in it: the functions hold all that is needed
    served.weights = model.variables
    described = {
        "kind": "segmenter" if segments else "detector",
        "labels": {str(k): v for k, v in (labels or {}).items()},
        "exif": exif,
    }
    with atomic_path(folder) as partial:
        tf.saved_model.save(served, partial, signatures={"serving_default": signatures["image_bytes"], **signatures})
        with tf.io.gfile.GFile(os.path.join(partial, "labels.json"), "w") as file:
            json.dump(described, file)
    return folder
