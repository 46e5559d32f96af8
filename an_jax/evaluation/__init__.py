"""Evaluation: metrics, the loop over a test set, and the files of results."""
