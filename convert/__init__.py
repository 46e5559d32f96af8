"""Conversion between PyTorch `.pth` files and checkpoints: `python -m convert --help`."""
