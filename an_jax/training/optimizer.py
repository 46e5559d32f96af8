"""SGD with momentum, and the learning-rate schedule of the papers' recipe."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

FINAL_LEARNING_RATE = 1e-6


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


def sgd(
    learning_rate: optax.ScalarOrSchedule, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """Returns SGD as PyTorch computes it, with weight decay on all parameters."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum=momentum)
    )
