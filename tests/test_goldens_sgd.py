"""Losses of SGD steps against those of the original PyTorch code, in float64."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from an_jax import parallel
from an_jax.training.optimizer import sgd
from an_jax.training.step import init_state, train_step
from an_jax.training.targets import smooth_targets
from tests import reference
from tests.goldens import models, relative_error

pytestmark = pytest.mark.usefixtures("clear_caches", "float64")


def train(name, learning_rate, num_steps):
    """Losses of SGD steps with the reference's weights, images and labels."""
    split, size = reference.load(name, np.float64), int(reference.golden(name)["sgd_size"])
    images, labels = reference.images(8, size), reference.labels(8)
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    optimizer = sgd(learning_rate, momentum=0.9, weight_decay=1e-4)

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P(), out_specs=P())
    def step(state):
        targets = smooth_targets(labels, 1000, smoothing=0.0)
        return train_step(split.definition, optimizer, state, images, targets, None)

    # Replicated, as a step returns it: otherwise the step would be compiled twice.
    state = parallel.replicate(init_state(split, optimizer), mesh)
    losses = []
    for _ in range(num_steps):
        state, metrics = step(state)
        losses.append(float(metrics.loss))
    return np.array(losses)


def check(name, run, learning_rate, record_error, num_steps=5):
    """Compares the losses that rounding leaves alone: large learning rates make the rest chaotic.

    The goldens' `sens` is the change of each loss when the weights change by 1e-14 of theirs.
    """
    golden = reference.golden(name)
    expected, sensitivity = (golden[f"{run}_{key}"][:num_steps] for key in ("losses", "sens"))
    losses = train(name, learning_rate, num_steps)
    is_tame = sensitivity < 1e-5
    tolerance = 1e-6 * np.maximum(1, expected) + 1000 * sensitivity
    assert is_tame[:2].all()
    assert (np.abs(losses - expected) <= tolerance)[is_tame].all()
    record_error(relative_error(losses[is_tame], expected[is_tame]), f"{run} losses")


def test_three_steps(record_error):
    """The third loss is the first that depends on the momentum."""
    check("resnet_34_bn", "sgd", 0.05, record_error, num_steps=3)


@models(fast=())
def test_large_learning_rate(name, record_error):
    check(name, "sgd", 0.05, record_error)


@models(fast=())
def test_small_learning_rate(name, record_error):
    rate = float(reference.golden(name)["sgd_small_lr"])
    check(name, "sgd_small", rate, record_error)
