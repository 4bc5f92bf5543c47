"""The pretext task: the model, its layers, terms and losses, probes of what it learns, and figures."""
