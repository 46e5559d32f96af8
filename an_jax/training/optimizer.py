"""SGD with momentum and the learning-rate schedule of the papers' recipe."""

import jax.numpy as jnp
import numpy as np
import optax

FINAL_LEARNING_RATE = 1e-6


def cosine_schedule(
    peak: float, steps_per_epoch: int, num_epochs: int, warmup_epochs: int
) -> optax.Schedule:
    """Learning rate of each update: linear from peak/100 to peak, then cosine to 1e-6.

    Update 0 takes peak/100, update W = warmup_epochs * steps_per_epoch takes peak, and the last
    one comes close to 1e-6, which is absolute: it does not scale with the peak.

    Args:
        peak: the highest rate; the recipe's is 0.1 for each 256 images of the global batch.
        steps_per_epoch: updates in an epoch.
        num_epochs: length of the training, warm-up included.
        warmup_epochs: length of the linear part.
    """
    warmup = warmup_epochs * steps_per_epoch
    decay = (num_epochs - warmup_epochs) * steps_per_epoch

    def schedule(step):
        xp = np if isinstance(step, int) else jnp  # the host asks without waiting for the device
        rise = peak / 100 * (1 + 99 * step / max(warmup, 1))
        cosine = (1 + xp.cos(xp.pi * (step - warmup) / decay)) / 2
        fall = FINAL_LEARNING_RATE + (peak - FINAL_LEARNING_RATE) * cosine
        return xp.where(step <= warmup, rise, fall) if warmup else fall

    return schedule


def sgd(
    learning_rate: optax.ScalarOrSchedule, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """SGD as PyTorch computes it; weight decay on all parameters, norms and biases included."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum=momentum)
    )
