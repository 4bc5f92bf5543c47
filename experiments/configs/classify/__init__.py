"""Classification: one experiment is one file."""
