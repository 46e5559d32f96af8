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


@models(fast={"resnet_34_bn"})
def test_losses(name, record_error):
    """At a large learning rate, and at one so small that the losses decrease slowly."""
    split, golden = reference.load(name, np.float64), reference.golden(name)
    images, labels = reference.images(8, int(golden["sgd_size"])), reference.labels(8)
    mesh = parallel.make_mesh(devices=jax.devices()[:1])

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P(), out_specs=P())
    def step(state, learning_rate):
        optimizer = sgd(learning_rate, momentum=0.9, weight_decay=1e-4)
        targets = smooth_targets(labels, 1000, smoothing=0.0)
        return train_step(split.definition, optimizer, state, images, targets, None)

    for run, learning_rate in (("sgd", 0.05), ("sgd_small", golden["sgd_small_lr"])):
        # Replicated as the step returns it, else the step would be compiled twice.
        initial = init_state(split, sgd(0.0, momentum=0.9, weight_decay=1e-4))
        state = parallel.replicate(initial, mesh)
        losses = []
        for _ in range(5):
            state, metrics = step(state, float(learning_rate))
            losses.append(float(metrics.loss))
        expected, sensitivity = golden[f"{run}_losses"], golden[f"{run}_sens"]
        # A large rate makes losses chaotic: compare those that a change of 1e-14 leaves alone.
        is_tame = sensitivity < 1e-5
        tolerance = 1e-6 * np.maximum(1, expected) + 1000 * sensitivity
        assert is_tame[:2].all()
        assert (np.abs(losses - expected) <= tolerance)[is_tame].all()
        error = relative_error(np.array(losses)[is_tame], expected[is_tame])
        record_error(error, f"{run} losses")
