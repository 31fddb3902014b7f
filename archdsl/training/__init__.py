"""Training: the loop, its checkpoints, groups of parameters, and whether a model fits a task."""
