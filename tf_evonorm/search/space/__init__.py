"""The space of layers: primitives, graphs of them, their cheap checks, and the Keras layer that runs a graph."""
