"""Per-sample moments, from one pass over the activations; all norms use them."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from an_jax.nn.layers import at_least_float32


class Moments(NamedTuple):
    """First and second moments of each channel of each sample, about a common `shift`.

    Attributes:
        mean: mean of x - shift over the pixels, [N, C], at least float32.
        square: mean of (x - shift)^2 over the pixels, [N, C].
        shift: [C] or a scalar; near the mean, it keeps E[d^2] - E[d]^2 from cancelling.
        num_pixels: number of values in each mean.
    """

    mean: jax.Array
    square: jax.Array
    shift: jax.Array | float
    num_pixels: int


def sample_moments(x: jax.Array, shift: jax.Array | float = 0.0) -> Moments:
    """Returns the moments of x [N, ..., C] over all axes between the first and the last."""
    mean, square = _means(x, shift)
    return Moments(mean, square, shift, math.prod(x.shape[1:-1]))


# JAX traces and lowers a jitted function once for all layers of the same shape.
@jax.jit
def _means(x: jax.Array, shift: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    axes = tuple(range(1, x.ndim - 1))
    deviation = x.astype(at_least_float32(x.dtype)) - shift
    return jnp.mean(deviation, axis=axes), jnp.mean(jnp.square(deviation), axis=axes)


def variance(mean: jax.Array, square: jax.Array) -> jax.Array:
    """Returns the biased variance from the two moments, at least 0 whatever the rounding."""
    return jnp.maximum(square - jnp.square(mean), 0.0)


@functools.partial(jax.jit, static_argnames=("epsilon", "dtype"))
def normalize(
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    scale: jax.Array | float,
    bias: jax.Array | float,
    epsilon: float,
    dtype: DTypeLike,
) -> jax.Array:
    """(x - mean) / sqrt(var + epsilon) * scale + bias in at least float32, cast to `dtype`."""
    factor = jax.lax.rsqrt(var + epsilon) * scale
    return ((x.astype(factor.dtype) - mean) * factor + bias).astype(dtype)
