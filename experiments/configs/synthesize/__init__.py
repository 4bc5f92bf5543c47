"""Image synthesis: one experiment is one file."""
