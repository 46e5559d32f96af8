"""Short training runs on the digits, and comparisons of their last checkpoints."""

import os

import jax
import ml_collections
import numpy as np
from etils import epath

from an_jax import create_model, functional
from an_jax.training import loop, optimizer
from an_jax.training.checkpoints import TrainCheckpoints
from an_jax.training.step import TrainState, init_state
from configs import digits

NUM_STEPS = 12
CHANGES = {
    "image_size": 8,
    "batch_size": 240,
    "num_epochs": 2,
    "warmup_epochs": 1,
    "learning_rate": 0.005,  # small, so that rounding errors do not grow
    "log_steps": 4,
}
# Options for fine-tuning.
TUNED = {
    "optimizer": "adamw",
    "learning_rate": 0.002,
    "decay_norms_and_biases": False,
    "clip_norm": 1.0,
    "freeze": "conv1|layer1",
    "ema": 0.8,
    "eval_sets": "digits,digits-noise",
    "eval_sets_epochs": 2,
}


def config(**changes) -> ml_collections.ConfigDict:
    """Two epochs of six steps."""
    result = digits.get_config("bn")
    result.update(CHANGES | changes)
    return result


def interrupt_after(monkeypatch, last_step, *signals):
    """Makes the next training receive signals after a step."""
    add = loop.StepWatch.add

    def interrupted(watch, epoch, step, *args):
        add(watch, epoch, step, *args)
        if step == last_step:
            for number in signals:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(loop.StepWatch, "add", interrupted)


def new_state(**changes) -> TrainState:
    split = functional.split(create_model("resnet_20_bn", num_classes=10))
    fields = config(**changes)
    frozen = optimizer.find_frozen(fields.freeze, split)
    updates = optimizer.make_optimizer(fields, lambda _: 0.1, frozen)
    return init_state(split, updates, has_ema=fields.ema > 0)


def read_last(workdir: epath.Path, **changes) -> TrainState:
    """The state in the last checkpoint of a run whose configuration has these changes."""
    with TrainCheckpoints(workdir, keep=2) as checkpoints:
        return checkpoints.restore_last(new_state(**changes))


def assert_same_end(
    workdir: epath.Path, expected: epath.Path, num_steps: int = NUM_STEPS, **changes
) -> None:
    states = read_last(workdir, **changes), read_last(expected, **changes)
    assert jax.tree.all(jax.tree.map(np.array_equal, *states))
    assert int(states[0].step) == num_steps
