"""Images from disk to batches, and the test sets. The host side runs in tf.data, on the CPU."""
