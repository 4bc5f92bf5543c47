"""Sources of images and the batches made of them: folders, zips, TFRecords, TFDS and synthetic scenes, all through tf.data."""

from tf_pixpro.data.datasets import labelled_dataset, pretrain_dataset, training_dataset
from tf_pixpro.data.sources import Source, source

__all__ = ["Source", "labelled_dataset", "pretrain_dataset", "source", "training_dataset"]
