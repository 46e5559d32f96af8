"""TensorFlow's import and its effect on the environment; the parallelism of input pipelines."""

import os
import subprocess
import sys
import threading

from an_jax.data.tf_on_cpu import tf, without_autotune
from tests.processes import ROOT

PROGRAM = """
import importlib, os, sys
from an_jax.data import tf_on_cpu
print(os.environ.get("TF_USE_LEGACY_KERAS"), os.environ["TF2_BEHAVIOR"], "keras" in sys.modules)
os.environ["TF_USE_LEGACY_KERAS"] = "true"
importlib.reload(tf_on_cpu)
print(os.environ.get("TF_USE_LEGACY_KERAS"))
"""


def test_environment_is_unchanged():
    """The Keras variable is set during the import only, unless the user has set it."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert process.stdout.splitlines() == ["None 1 False", "true"], process.stderr


def test_parallel_calls_equal_cores(monkeypatch):
    """24 calls run at once on 24 cores; tf.data would start with at most 16."""
    monkeypatch.setattr(os, "cpu_count", lambda: 24)
    barrier = threading.Barrier(24, timeout=60)

    def call(n):
        barrier.wait()
        return n

    dataset = tf.data.Dataset.range(48).map(
        lambda n: tf.numpy_function(call, [n], tf.int64), tf.data.AUTOTUNE
    )
    options = tf.data.Options()
    options.threading.private_threadpool_size = 24
    results = without_autotune(dataset.with_options(options)).as_numpy_iterator()
    assert list(results) == list(range(48))
