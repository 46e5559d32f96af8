"""The import of TensorFlow: what it leaves in the environment."""

import os
import subprocess
import sys

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


def test_tuning_is_off_for_all_that_comes_before():
    dataset = untuned(tf.data.Dataset.range(3).map(lambda n: n + 1, tf.data.AUTOTUNE))
    assert not dataset.options().autotune.enabled
    assert list(dataset.as_numpy_iterator()) == [1, 2, 3]
