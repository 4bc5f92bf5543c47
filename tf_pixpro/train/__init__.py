"""Training on Model Garden's loop: the loop, the actions between its inner loops, and the tasks."""
