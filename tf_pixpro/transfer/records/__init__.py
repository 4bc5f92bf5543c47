"""Annotated pictures as their owners ship them, written once as the TFRecords that Model Garden reads."""

from tf_pixpro.transfer.records.annotations import Category, Picture, Problems, Thing, fraction
from tf_pixpro.transfer.records.coco import coco
from tf_pixpro.transfer.records.drawn_scenes import scenes
from tf_pixpro.transfer.records.mask_folders import camvid, cityscapes
from tf_pixpro.transfer.records.voc import VOC, voc
from tf_pixpro.transfer.records.writer import write_records

__all__ = [
    "VOC",
    "Category",
    "Picture",
    "Problems",
    "Thing",
    "camvid",
    "cityscapes",
    "coco",
    "fraction",
    "scenes",
    "voc",
    "write_records",
]
