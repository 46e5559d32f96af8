"""The diffs of CONTRIBUTING.md apply to the package, and do what the text says."""

import os
import re
import shutil
import subprocess
import sys

from tests.processes import ROOT

# TensorFlow, which takes seconds to import, is not needed to look at the table of test sets.
PROGRAM = """
import sys
from unittest import mock

sys.modules["an_jax.data.tf_on_cpu"] = mock.MagicMock()

import jax
import jax.numpy as jnp

from an_jax import functional, zoo
from an_jax.data.sets.image_sets import IMAGE_SETS
from an_jax.data.sets.test_sets import TEST_SETS
from an_jax.nn import InstanceNorm
from convert.recognize import NUM_TENSORS
from convert.torch_layout import torch_layout

layout = torch_layout("resnet_18_an_bn2", 10)
assert NUM_TENSORS["resnet_18_an_bn2"] == sum(tensor.path is not None for tensor in layout)
definition, *shapes = functional.split(zoo.abstract_model("resnet_18_an_bn2", num_classes=10))
arrays = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
apply_eval = jax.jit(functional.apply_eval, static_argnums=0)
assert apply_eval(definition, *arrays, jnp.zeros((1, 32, 32, 3))).shape == (1, 10)

assert TEST_SETS["imagenet-night"].image_sets == ("imagenet-night",)
assert IMAGE_SETS["imagenet-night"].num_images == 20_000

x = InstanceNorm(2, dtype=jnp.float32)(jnp.arange(16.0).reshape(1, 2, 4, 2))
assert abs(x.mean()) < 1e-6 and abs(x.std(axis=(1, 2)) - 1).max() < 1e-3
"""


def test_the_examples_work(tmp_path):
    for package in ("an_jax", "convert"):
        ignore = shutil.ignore_patterns("*.pyc")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
    diffs = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert len(diffs) == 3
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    for command, given in (
        (["git", "apply", "--unidiff-zero"], "".join(diffs)),  # a row above is the only context
        ([sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", "."], None),
        ([sys.executable, "-c", PROGRAM], None),
    ):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, input=given, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
