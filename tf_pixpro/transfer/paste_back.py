"""Predictions of a resized image back on the image as it was."""

from __future__ import annotations

import numpy as np
from official.vision.ops import mask_ops
from PIL import Image


def boxes(predicted: np.ndarray, image_info: np.ndarray) -> np.ndarray:
    """Boxes in pixels of the image.

    Args:
      predicted: [N, 4] float32, (y1, x1, y2, x2) in the resized image.
      image_info: [4, 2] float32; its third row is the factor of the resize, (y, x).

    Returns:
      [N, 4] float32, (x, y, width, height).
    """
    y1, x1, y2, x2 = (np.asarray(predicted, np.float32) / np.tile(image_info[2], 2)).T
    return np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)


def mask(predicted: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One mask [H, W] bool, of an image of that size.

    Args:
      predicted: [h, w] float32, probabilities inside the box.
      box: (x, y, width, height) in pixels of the image.
      size: (H, W) in pixels.
    """
    return mask_ops.paste_instance_masks(predicted[None], np.asarray(box, np.float32)[None], *size)[0] > 0


def classes(logits: np.ndarray, image_info: np.ndarray) -> np.ndarray:
    """Class numbers [H, W] uint8 of the image as it was.

    Args:
      logits: [h, w, classes] float32 of the resized image, which lies at the top left of its frame.
      image_info: [4, 2] float32: (H, W), the frame, the factor of the resize, the offset.
    """
    size, scale = image_info[0].astype(int), image_info[2]
    height, width = np.minimum(np.rint(size * scale), logits.shape[:2]).astype(int)
    numbers = np.argmax(logits[:height, :width], axis=-1).astype(np.uint8)
    return np.asarray(Image.fromarray(numbers).resize((size[1], size[0]), Image.Resampling.NEAREST))
