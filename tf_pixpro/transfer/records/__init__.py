"""Annotated images as their owners ship them, written once as the TFRecords that Model Garden reads."""

from tf_pixpro.transfer.records.annotations import (
    AnnotatedImage,
    Category,
    MaskCodes,
    ObjectAnnotation,
    Problems,
    fraction,
)
from tf_pixpro.transfer.records.coco import coco
from tf_pixpro.transfer.records.drawn_scenes import scenes
from tf_pixpro.transfer.records.image_files import ImageFolder
from tf_pixpro.transfer.records.mask_folders import camvid, cityscapes, masks
from tf_pixpro.transfer.records.record_sets import align_categories, check_sets, free_name, summary_of
from tf_pixpro.transfer.records.voc import VOC, voc
from tf_pixpro.transfer.records.writer import write_records

__all__ = [
    "VOC",
    "AnnotatedImage",
    "Category",
    "ImageFolder",
    "MaskCodes",
    "ObjectAnnotation",
    "Problems",
    "align_categories",
    "camvid",
    "check_sets",
    "cityscapes",
    "coco",
    "fraction",
    "free_name",
    "masks",
    "scenes",
    "summary_of",
    "voc",
    "write_records",
]
