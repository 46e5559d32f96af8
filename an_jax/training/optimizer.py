"""Optimizers, and the learning-rate schedule of the papers' recipe."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from an_jax.errors import InputError
from an_jax.functional import NamedArrays, Split

FINAL_LEARNING_RATE = 1e-6
ADAPTIVE = {"adamw": optax.adamw, "lamb": optax.lamb}
OPTIMIZERS = ("sgd", *ADAPTIVE)


def cosine_schedule(
    peak: float, steps_per_epoch: int, num_epochs: int, warmup_epochs: int
) -> optax.Schedule:
    """Returns the learning rate of each update: linear from peak/100 to peak, then cosine to 1e-6.

    Update 0 uses peak/100, update warmup_epochs * steps_per_epoch uses peak, and the last one is
    close to 1e-6, which does not scale with the peak.

    Args:
        peak: the highest rate; the recipe's is 0.1 per 256 images of the global batch.
        steps_per_epoch: updates in an epoch.
        num_epochs: length of the training, including warm-up.
        warmup_epochs: length of the linear part.
    """
    warmup = warmup_epochs * steps_per_epoch
    decay = (num_epochs - warmup_epochs) * steps_per_epoch

    def schedule(step: jax.Array | int) -> jax.Array | np.ndarray | float:
        # For an int, computes on the host with NumPy: an optax schedule would block on the device.
        xp = np if isinstance(step, int) else jnp
        rise = peak / 100 * (1 + 99 * step / max(warmup, 1))
        cosine = (1 + xp.cos(xp.pi * (step - warmup) / decay)) / 2
        fall = FINAL_LEARNING_RATE + (peak - FINAL_LEARNING_RATE) * cosine
        return xp.where(step <= warmup, rise, fall) if warmup else fall

    return schedule


def peak_learning_rate(config: ml_collections.ConfigDict) -> float:
    """Returns the highest learning rate; `config.learning_rate` is that of 256 images.

    SGD's is proportional to the batch size (Goyal et al., 2017), that of AdamW and LAMB to its
    square root (You et al., 2020).
    """
    scale = config.batch_size / 256
    return config.learning_rate * (scale**0.5 if config.optimizer in ADAPTIVE else scale)


def make_optimizer(
    config: ml_collections.ConfigDict,
    learning_rate: optax.ScalarOrSchedule,
    frozen: frozenset[str] = frozenset(),
) -> optax.GradientTransformation:
    """Returns the optimizer of a configuration, for parameters by name.

    Args:
        config: the configuration.
        learning_rate: of each update.
        frozen: names of the parameters that do not change.
    """
    mask = None if config.decay_norms_and_biases else _are_kernels
    if config.optimizer in ADAPTIVE:
        make = ADAPTIVE[config.optimizer]
        optimizer = make(learning_rate, weight_decay=config.weight_decay, mask=mask)
    else:
        optimizer = sgd(learning_rate, config.momentum, config.weight_decay, mask)
    if config.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    if not frozen:
        return optimizer
    return optax.partition(
        {"frozen": optax.set_to_zero(), "trained": optimizer},
        lambda arrays: {name: "frozen" if name in frozen else "trained" for name in arrays},
    )


def find_frozen(pattern: str, split: Split) -> frozenset[str]:
    """Returns the names of the parameters and running statistics that begin with a pattern's match.

    Raises:
        InputError: the pattern matches no parameter, or all of them.
    """
    if not pattern:
        return frozenset()
    frozen = frozenset(filter(re.compile(pattern).match, split.params | split.batch_stats))
    count = len(frozen & split.params.keys())
    if count in (0, len(split.params)):
        raise InputError(
            f"freeze: {pattern!r} matches {'all' if count else 'none'} of the model's "
            f"{len(split.params)} parameters; their names are like {next(iter(split.params))}"
        )
    return frozen


Mask = Callable[[NamedArrays], dict[str, bool]]


def _are_kernels(arrays: NamedArrays) -> dict[str, bool]:
    """Selects the kernels of convolutions and linear layers from all parameters."""
    return {name: name.endswith("kernel") for name in arrays}


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float,
    weight_decay: float,
    mask: Mask | None = None,
) -> optax.GradientTransformation:
    """Returns SGD as PyTorch computes it, with weight decay on all or on masked parameters."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask), optax.sgd(learning_rate, momentum=momentum)
    )
