"""Throughput of the input pipelines, compared with Pillow."""
