"""Adversarial training of a generator: task, scores, samples, export."""
