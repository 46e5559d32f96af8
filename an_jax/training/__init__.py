"""Training: optimizer, step, loop, checkpoints and logs."""
