"""The search that finds such layers: graphs of primitives, cheap checks, rejection, small anchors, evolution, a study of many workers."""
