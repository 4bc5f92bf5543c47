"""Propagate Yourself (PixPro): pixel-level unsupervised pre-training in TensorFlow/Keras."""

from tf_pixpro.checkpoints import load_backbone, save_backbone
from tf_pixpro.export import export_encoder
from tf_pixpro.geometry import cell_centres, positive_mask
from tf_pixpro.optimization import LARS, WarmupCosine, WarmupStep, momentum_schedule
from tf_pixpro.pretext.instance_terms import BYOL, SimCLR
from tf_pixpro.pretext.layers import PixelPropagation, ProjectionHead
from tf_pixpro.pretext.losses import pixel_consistency
from tf_pixpro.pretext.model import PixPro
from tf_pixpro.pretext.pixcontrast import PixContrast
from tf_pixpro.pretext.pixel_terms import PixelConsistency, PixelContrast
from tf_pixpro.version import __version__

__all__ = [
    "BYOL",
    "LARS",
    "PixContrast",
    "PixPro",
    "PixelConsistency",
    "PixelContrast",
    "PixelPropagation",
    "ProjectionHead",
    "SimCLR",
    "WarmupCosine",
    "WarmupStep",
    "__version__",
    "cell_centres",
    "export_encoder",
    "load_backbone",
    "momentum_schedule",
    "pixel_consistency",
    "positive_mask",
    "save_backbone",
]
