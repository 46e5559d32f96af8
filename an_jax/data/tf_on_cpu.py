"""TensorFlow, quiet and off the accelerator, whose memory it would seize: import it from here."""

import os
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # not used here, and it talks

# Keras is not used here, and would take a third of the import's time.
with mock.patch.dict(os.environ, TF_USE_LEGACY_KERAS="1"):
    import tensorflow as tf

tf.config.set_visible_devices([], "GPU")
tf.config.set_visible_devices([], "TPU")

__all__ = ["tf"]
