"""Annotated pictures as their owners ship them, written once as the TFRecords that Model Garden reads."""

from tf_pixpro.transfer.data.coco import coco
from tf_pixpro.transfer.data.drawn import scenes
from tf_pixpro.transfer.data.folders import camvid, cityscapes
from tf_pixpro.transfer.data.pictures import Category, Picture, Problems, Thing, fraction
from tf_pixpro.transfer.data.records import write_records
from tf_pixpro.transfer.data.voc import VOC, voc

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
