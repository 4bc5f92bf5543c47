"""Comparisons that train many runs and draw a table and a figure of them."""
