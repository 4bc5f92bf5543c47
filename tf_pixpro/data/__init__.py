"""Sources of images (folders, zips, TFRecords, TFDS, synthetic scenes) and the tf.data batches made of them."""

from tf_pixpro.data.datasets import check_labels, labelled_dataset, pretrain_dataset, training_dataset
from tf_pixpro.data.interface import Source, with_classes
from tf_pixpro.data.sources import source

__all__ = [
    "Source",
    "check_labels",
    "labelled_dataset",
    "pretrain_dataset",
    "source",
    "training_dataset",
    "with_classes",
]
