"""Losses of SGD steps against those of the original PyTorch code, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from an_jax import parallel
from an_jax.training.optimizer import sgd
from an_jax.training.step import differentiate, init_state, update
from an_jax.training.targets import smooth_targets
from tests import reference
from tests.goldens import models, relative_error

pytestmark = pytest.mark.usefixtures("clear_caches", "float64")


def make_step(name, mesh):
    """Returns the compiled step on the reference's images: (state, rate) -> (state, metrics)."""
    definition = reference.abstract_split(name, jnp.float64).definition
    size = int(reference.golden(name)["sgd_size"])
    images, labels = reference.images(8, size), reference.labels(8)

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P(), out_specs=P())
    def step(state, learning_rate):
        optimizer = sgd(learning_rate, momentum=0.9, weight_decay=1e-4)
        targets = smooth_targets(labels, 1000, smoothing=0.0)
        return update(optimizer, state, *differentiate(definition, state, images, targets, None))

    return step


@models(fast=())
def test_five_steps(name, record_error):
    """At a large learning rate, and at one so small that losses decrease steadily.

    A large rate makes training chaotic. The goldens' `sens` is the change of each loss when the
    weights change by 1e-14 of themselves: losses that change much are not compared.
    """
    golden, split = reference.golden(name), reference.load(name, jnp.float64)
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    step = make_step(name, mesh)
    for run, learning_rate in {"sgd": 0.05, "sgd_small": float(golden["sgd_small_lr"])}.items():
        # Replicated, as a step returns it: otherwise the step would be compiled twice.
        initial = init_state(split, sgd(0.0, momentum=0.9, weight_decay=1e-4))
        state, losses = parallel.replicate(initial, mesh), []
        for _ in range(5):
            state, metrics = step(state, learning_rate)
            losses.append(float(metrics.loss))
        expected, sensitivity = (golden[f"{run}_{key}"] for key in ("losses", "sens"))
        is_tame = sensitivity < 1e-5
        tolerance = 1e-6 * np.maximum(1, expected) + 1000 * sensitivity
        assert is_tame[:2].all()
        assert (np.abs(losses - expected) <= tolerance)[is_tame].all()
        error = relative_error(np.array(losses)[is_tame], expected[is_tame])
        record_error(error, f"{run} losses")
