"""The import of TensorFlow: what it leaves in the environment."""

import os
import subprocess
import sys
import threading

import pytest

from an_jax.data.tf_on_cpu import tf, untuned
from tests.processes import ROOT

PROGRAM = """
import os, sys
from an_jax.data.tf_on_cpu import tf
print(os.environ.get("TF_USE_LEGACY_KERAS"), os.environ["TF2_BEHAVIOR"], "keras" in sys.modules)
"""


@pytest.mark.parametrize("given", [None, "true"])
def test_the_environment_is_the_users(given):
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    environment |= {"TF_USE_LEGACY_KERAS": given} if given else {}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(given), "1", "False"], done.stderr


def test_as_many_calls_as_there_are_cores(monkeypatch):
    """Also on more than sixteen, which is what tf.data would begin with. All 24 calls meet."""
    monkeypatch.setattr(os, "cpu_count", lambda: 24)
    meeting = threading.Barrier(24, timeout=60)

    def call(n):
        meeting.wait()
        return n

    dataset = tf.data.Dataset.range(48).map(
        lambda n: tf.numpy_function(call, [n], tf.int64), tf.data.AUTOTUNE
    )
    options = tf.data.Options()
    options.threading.private_threadpool_size = 24
    found = untuned(dataset.with_options(options)).as_numpy_iterator()
    assert list(found) == list(range(48))
