"""Short training runs on the digits, and what came of them."""

import jax
import numpy as np

from an_jax import create_model, functional
from an_jax.training import optimizer
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.step import init_state
from configs import digits


def config(**changes):
    result = digits.get_config("bn")
    few = {"num_epochs": 2, "warmup_epochs": 1, "batch_size": 240, "log_steps": 4}
    result.update(few | changes)
    return result


def read_last(workdir):
    """Parameters, statistics and optimizer state of the last checkpoint."""
    split = functional.split(create_model("resnet_20_bn", num_classes=10))
    with TrainCheckpoints(workdir, keep=2) as checkpoints:
        return checkpoints.restore_last(init_state(split, optimizer.sgd(lambda _: 0.1, 0.9, 1e-4)))


def assert_same_end(workdir, expected):
    states = read_last(workdir), read_last(expected)
    assert jax.tree.all(jax.tree.map(np.array_equal, *states))
    assert int(states[0].step) == 12
