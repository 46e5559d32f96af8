"""Training: optimizer, step, loop, checkpoints, and what a person watches meanwhile."""
