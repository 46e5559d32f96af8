"""TensorFlow without log messages, and on the CPU only: on a GPU it would reserve all memory.

All modules import TensorFlow from here.
"""

import os
import re

from an_jax.errors import one_line, with_advice

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # not used here, and it prints a notice

# With this variable TensorFlow does not import Keras, which takes a third of the time. It is unset
# again for the user's own code.
_KERAS = "TF_USE_LEGACY_KERAS"
_is_set_by_user = _KERAS in os.environ
os.environ.setdefault(_KERAS, "1")
try:
    import tensorflow as tf
finally:
    if not _is_set_by_user:
        del os.environ[_KERAS]

tf.config.set_visible_devices([], "GPU")
tf.config.set_visible_devices([], "TPU")

__all__ = ["explain", "tf", "without_autograph", "without_autotune"]

# Decorates the functions that datasets call. They contain no Python statement on tensors, and
# Autograph would take a second to rewrite them.
without_autograph = tf.autograph.experimental.do_not_convert


def explain(error: Exception) -> str:
    """Returns the reason of a file system or decoder, and what to do about it if that is known."""
    # TensorFlow describes the pipeline first.
    line = re.sub(r"\{\{.*?\}\} | \[.*", "", one_line(error) or type(error).__name__)
    return with_advice(error, re.sub(r"^.*Iterator::\S+: ", "", line))


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset with a fixed number of parallel calls of each map: one per core.

    If tf.data tunes this number, it sometimes settles on one call, which halves the throughput.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.autotune.initial_parallelism = os.cpu_count()  # the default is at most 16
    return dataset.with_options(options)
