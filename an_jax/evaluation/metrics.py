"""Metrics as pure functions of logits and labels, in JAX."""

import jax
import jax.numpy as jnp


def top_predictions(logits: jax.Array, k: int = 5) -> tuple[jax.Array, jax.Array]:
    """The k most probable classes, best first.

    Args:
        logits: [N, C].
        k: how many; C where there are fewer classes.

    Returns:
        Classes, int32 [N, k], and their softmax probabilities, [N, k].
    """
    classes = jax.lax.top_k(logits, min(k, logits.shape[-1]))[1]
    return classes, jnp.take_along_axis(jax.nn.softmax(logits), classes, axis=-1)


def is_in_top(classes: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether the label is among the first k of the classes [N, >=k]; bool [N]."""
    return jnp.any(classes[:, :k] == labels[:, None], axis=-1)
