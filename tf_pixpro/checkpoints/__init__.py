"""Weights in files: backbones for Model Garden, PyTorch checkpoints, and the names that map between them."""

from tf_pixpro.checkpoints.backbone import check_parts, load_backbone, save_backbone

__all__ = ["check_parts", "load_backbone", "save_backbone"]
