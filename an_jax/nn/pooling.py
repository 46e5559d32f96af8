"""Pooling with PyTorch's integer padding and its rounding of sizes, in NHWC."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from an_jax.errors import InputError
from an_jax.nn import taps
from an_jax.nn.layers import at_least_float32


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean over the pixels, [N, H, W, C] -> [N, C] in at least float32."""
    return jnp.mean(x, axis=(1, 2), dtype=at_least_float32(x.dtype))


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    """Largest value of each window; [N, H, W, C] -> [N, H', W', C], sizes rounded down.

    The gradient goes to the first of equal values, as in PyTorch.

    Raises:
        InputError: no window fits.
    """
    _check_size(x, window - 2 * padding)
    return _max_pool(x, window, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, stride, padding):
    def by_taps(x):
        out_size = [(n + 2 * padding - window) // stride + 1 for n in x.shape[1:3]]
        seen = (taps.gather(x, t, out_size, stride, padding, -np.inf) for t in _taps(window))
        return functools.reduce(jnp.maximum, seen)

    native = functools.partial(_native, window=window, stride=stride, padding=padding)
    return lax.platform_dependent(x, cpu=by_taps, default=native)


def _forward(x, window, stride, padding):
    y = _max_pool(x, window, stride, padding)
    return y, (x, y)


def _backward(window, stride, padding, saved, gradient):
    def native(x, y, gradient):
        pool = functools.partial(_native, window=window, stride=stride, padding=padding)
        return jax.vjp(pool, x)[1](gradient)[0]

    def by_taps(x, y, gradient):  # the native form fills four arrays of indices on CPUs

        def first_hit():
            hit = jnp.zeros(y.shape, np.min_scalar_type(window**2))
            for number, tap in reversed(list(enumerate(_taps(window)))):
                seen = taps.gather(x, tap, y.shape[1:3], stride, padding, -np.inf)
                hit = jnp.where((seen == y) | jnp.isnan(seen), hit.dtype.type(number), hit)
            return hit

        # The same either way: XLA fuses nothing across a condition, and so finds each hit once
        # instead of once for each tap. On CPUs it drops lax.optimization_barrier.
        hit = lax.cond(jnp.sum(y[:1, 0, 0, 0]) > 0, first_hit, first_hit)
        parts = (jnp.where(hit == number, gradient, 0) for number in range(window**2))
        return sum(
            taps.scatter(part, tap, x.shape[1:3], stride, padding)
            for part, tap in zip(parts, _taps(window), strict=True)
        )

    return (lax.platform_dependent(*saved, gradient, cpu=by_taps, default=native),)


_max_pool.defvjp(_forward, _backward)


def _taps(window):
    return itertools.product(range(window), repeat=2)


def _native(x, window, stride, padding):
    pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    lowest = np.array(-np.inf, x.dtype)
    return lax.reduce_window(
        x, lowest, lax.max, (1, window, window, 1), (1, stride, stride, 1), pad
    )


def avg_pool(x: jax.Array) -> jax.Array:
    """2x2 means at stride 2; [N, H, W, C] -> [N, H // 2, W // 2, C].

    Raises:
        InputError: no window fits.
    """
    _check_size(x, 2)
    window, zero = (1, 2, 2, 1), np.array(0, x.dtype)
    return lax.reduce_window(x, zero, lax.add, window, window, "VALID") / 4


def avg_pool_ceil(x: jax.Array) -> jax.Array:
    """2x2 means at stride 2, sizes rounded up; a cell at an odd border averages what it covers."""
    _, height, width, _ = x.shape
    window, stride = (1, 2, 2, 1), (1, 2, 2, 1)
    pad = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    total = lax.reduce_window(x, np.array(0, x.dtype), lax.add, window, stride, pad)
    ones = np.ones((1, height, width, 1), x.dtype)
    return total / lax.reduce_window(ones, np.array(0, x.dtype), lax.add, window, stride, pad)


def _check_size(x, least):
    if min(x.shape[1:3]) < least:
        raise InputError(f"maps of {x.shape[1]}x{x.shape[2]} are too small: use larger images")
