"""The examples run, in a namespace of their own."""

import re
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import an_jax
from an_jax.models.resnet import BasicBlock, ResNet
from an_jax.nn import AttentiveNorm, BatchNorm
from tests import reference
from tests.processes import ROOT

BACKBONES = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/backbones.md").read_text(), flags=re.DOTALL
)


@pytest.mark.slow
def test_train_digits(capsys):
    with jax.default_device(jax.devices()[0]):
        runpy.run_path(str(ROOT / "examples/train_digits.py"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert float(re.search(r"accuracy ([\d.]+) %", lines[-1])[1]) > 90


def test_parts_of_networks(monkeypatch):
    """The names and arguments of docs/backbones.md, traced only."""
    make = an_jax.create_model
    monkeypatch.setattr(an_jax, "load_model", lambda path, with_classifier: make("resnet_20_bn"))

    def run(images):
        namespace = {"images": images}
        exec(BACKBONES[0] + BACKBONES[1], namespace)
        return namespace["pooled"], namespace["maps"]

    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    pooled, maps = jax.eval_shape(run, images)
    assert pooled.shape == (2, 2048)
    assert maps[-1].shape == (2, 16, 16, 64)  # of resnet_20_bn, the last model there


@pytest.mark.slow
def test_backbone_under_a_head(monkeypatch):
    """docs/backbones.md, with a smaller network than there."""
    backbone = ResNet(BasicBlock, (1, 1, 1), planes=(4, 4, 4), num_classes=0, rngs=nnx.Rngs(0))
    monkeypatch.setattr(an_jax, "load_model", lambda path, with_classifier: backbone)
    namespace = {}
    exec(BACKBONES[2], namespace)
    arguments = [namespace[name] for name in ("params", "batch_stats", "state")]
    images = reference.images(2, 32)
    labels = (images[..., 0] > 0).astype(int)
    losses = []
    for _ in range(4):
        *arguments, loss = namespace["train_step"](*arguments, images, labels)
        losses.append(loss)
    assert losses[-1] < losses[0]
    assert arguments[1]["backbone.norm1.mean"].any()


@pytest.mark.slow
def test_norm_in_ones_own_module():
    namespace = {}
    exec(BACKBONES[3], namespace)
    model, images = namespace["model"], reference.images(8, 16)
    assert isinstance(model.norm2, AttentiveNorm)
    labels = np.arange(8)
    step = namespace["train_step"]
    losses = [step(model, namespace["optimizer"], images, labels) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert isinstance(namespace["Network"](None, nnx.Rngs(0)).norm2, BatchNorm)
