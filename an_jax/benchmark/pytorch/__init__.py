"""PyTorch counterparts of the models and programs, for comparison."""
