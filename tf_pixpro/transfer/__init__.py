"""Detection, instance and semantic segmentation through Model Garden, from an encoder of this project."""
