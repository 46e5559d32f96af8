"""Self-contained HTML pages: the evaluation report and the training curves."""
