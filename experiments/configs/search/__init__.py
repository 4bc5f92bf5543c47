"""Search of layers: one experiment is one file."""
