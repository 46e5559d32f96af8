"""Speed, beside PyTorch's in the same run."""
