"""Conversion between PyTorch weights and checkpoints, both ways: `python -m convert --help`."""
