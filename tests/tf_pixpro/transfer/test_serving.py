"""Served models decode images by the rule of records and training."""

import io

import numpy as np
import pytest
import tensorflow as tf
from official.vision.configs import semantic_segmentation
from PIL import Image, ImageOps

from tf_evonorm.backbones import resnet
from tf_pixpro.transfer import serving
from tf_pixpro.transfer.models import detectors


@pytest.mark.parametrize("exif", [True, False])
def test_photos_are_served_as_displayed_or_as_stored(tmp_path, exif):
    params = semantic_segmentation.SemanticSegmentationTask()
    params.model.override({"num_classes": 3, "input_size": [64, 64, 3], "head": {"level": 5, "num_convs": 0}})
    params.override({"validation_data": {"output_size": [64, 64]}})
    encoder = resnet(18, None, input_size=(64, 64, 3), width=0.125, blocks=(1, 1, 1, 1))
    model = detectors.segmenter(encoder, params.model, fcn={"convs": 1, "filters": 8})
    folder = serving.export_transfer(model, params, str(tmp_path / "saved"), exif=exif)
    served = tf.saved_model.load(folder).signatures
    tag = Image.Exif()
    tag[0x0112] = 6
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG", exif=tag)
    stored = Image.open(file)
    shown = np.asarray(ImageOps.exif_transpose(stored) if exif else stored)
    from_bytes = served["image_bytes"](tf.constant([file.getvalue()]))
    from_pixels = served["image_tensor"](tf.constant(shown[None]))
    assert from_bytes["image_info"][0, 0].numpy().tolist() == list(shown.shape[:2])
    np.testing.assert_allclose(from_bytes["logits"], from_pixels["logits"], atol=1e-4)
