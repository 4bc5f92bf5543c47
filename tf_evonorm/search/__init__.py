"""The search for layers: the space of graphs, the trial of one candidate, the study that many workers share."""
