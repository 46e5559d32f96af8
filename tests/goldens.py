"""Shared by the golden tests: which models they cover, and how outputs are compared."""

import functools
from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from an_jax import functional
from tests import reference


def models(fast: Collection[str], names: Collection[str] = reference.MODELS):
    """Parametrizes a test with all `names`; those not in `fast` are slow tests."""
    return pytest.mark.parametrize(
        "name", [pytest.param(n, marks=[] if n in fast else pytest.mark.slow) for n in names]
    )


def relative_error(actual, expected) -> float:
    """Largest difference over the largest expected magnitude."""
    return float(np.max(np.abs(np.asarray(actual) - expected)) / np.max(np.abs(expected)))


# Weights are arguments: XLA would spend tens of seconds on folding constants.
@functools.partial(jax.jit, static_argnums=0)
def eval_outputs(definition, params, batch_stats, images):
    """Returns the logits, and the mean and standard deviation of each stage's output, [2, S]."""
    model = functional.merge(definition, params, batch_stats)
    model.eval()
    stages = model.features(images)
    statistics = jnp.array([[stage.mean() for stage in stages], [stage.std() for stage in stages]])
    return model(images), statistics
