"""Per-sample moments: the one pass over the activations that every normalization here shares."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from an_jax.nn.layers import at_least_float32


class Moments(NamedTuple):
    """First and second moments of each channel of each sample, about a common `shift`.

    Attributes:
        mean: mean of x - shift over the pixels, [N, C], at least float32.
        square: mean of (x - shift)^2 over the pixels, [N, C].
        shift: [C] (or a scalar), a guess of the mean that keeps E[d^2] - E[d]^2 from cancelling.
        num_pixels: how many values each mean is taken over.
    """

    mean: jax.Array
    square: jax.Array
    shift: jax.Array | float
    num_pixels: int


def sample_moments(x: jax.Array, shift: jax.Array | float = 0.0) -> Moments:
    """Moments of x [N, ..., C] over all axes between the first and the last."""
    axes = tuple(range(1, x.ndim - 1))
    num_pixels = 1
    for axis in axes:
        num_pixels *= x.shape[axis]
    deviation = x.astype(at_least_float32(x.dtype)) - shift
    mean = jnp.mean(deviation, axis=axes)
    return Moments(mean, jnp.mean(jnp.square(deviation), axis=axes), shift, num_pixels)


def variance(mean: jax.Array, square: jax.Array) -> jax.Array:
    """Biased variance from the two moments; rounding may not make it negative."""
    return jnp.maximum(square - jnp.square(mean), 0.0)


def normalize(x, mean, var, scale, bias, epsilon, dtype) -> jax.Array:
    """(x - mean) / sqrt(var + epsilon) * scale + bias in at least float32, returned in `dtype`."""
    factor = jax.lax.rsqrt(var + epsilon) * scale
    return ((x.astype(factor.dtype) - mean) * factor + bias).astype(dtype)
