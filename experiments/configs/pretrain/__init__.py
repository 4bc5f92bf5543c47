"""Pre-training: one experiment is one file."""
