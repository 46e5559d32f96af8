"""TensorFlow, quiet and off the accelerator, whose memory it would seize: import it from here."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # not used here, and it talks

# Keras is not used here, and would take a third of the import's time.
KERAS = "TF_USE_LEGACY_KERAS"
is_given = KERAS in os.environ
os.environ.setdefault(KERAS, "1")
try:
    import tensorflow as tf
finally:
    if not is_given:
        del os.environ[KERAS]

tf.config.set_visible_devices([], "GPU")
tf.config.set_visible_devices([], "TPU")

__all__ = ["tf", "untuned"]


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """With as many parallel calls of each map as TensorFlow has threads for them, one on a core:
    where tf.data may choose, it now and then settles on a single one, and on half the rate."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.autotune.initial_parallelism = os.cpu_count()  # or there would be 16 at most
    return dataset.with_options(options)
