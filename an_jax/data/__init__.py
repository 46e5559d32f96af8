"""Input pipelines, from files to batches. They run on the CPU, in tf.data."""
