"""The networks. They do not depend on data, checkpoints or PyTorch."""
