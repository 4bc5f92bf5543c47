"""Detection and segmentation: one experiment is one file."""
