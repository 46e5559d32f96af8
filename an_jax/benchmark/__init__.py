"""What `benchmark.py` measures: throughput, input pipelines, evaluation, start-up, TPU plans."""
