"""Training on Model Garden's loop: the loop, what happens between its inner loops, and the tasks."""
