"""The networks. They know nothing of data, checkpoints or PyTorch."""
