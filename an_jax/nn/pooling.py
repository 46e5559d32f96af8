"""Pooling with PyTorch's integer padding and its rounding of sizes, in NHWC."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from an_jax.errors import InputError
from an_jax.nn import taps
from an_jax.nn.layers import at_least_float32
from an_jax.nn.taps import Window


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean over the pixels: [N, H, W, C] -> [N, C] in at least float32."""
    return jnp.mean(x, axis=(1, 2), dtype=at_least_float32(x.dtype))


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    """Maximum of each window: [N, H, W, C] -> [N, H', W', C], sizes rounded down.

    The gradient goes to the first of equal values, as in PyTorch.

    Raises:
        InputError: no window fits.
    """
    _check_size(x, window - 2 * padding)
    settings = Window(window, stride, padding)
    native, by_taps = (functools.partial(f, window=settings) for f in (_native, _by_taps))
    return lax.platform_dependent(x, cpu=by_taps, default=native)


def _native(x: jax.Array, window: Window) -> jax.Array:
    size, stride, padding = window
    pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    lowest = np.array(-np.inf, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, (1, size, size, 1), (1, stride, stride, 1), pad)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _by_taps(x: jax.Array, window: Window) -> jax.Array:
    values = (taps.gather(x, tap, window, -np.inf) for tap in taps.taps(window.size))
    return functools.reduce(jnp.maximum, values)


@_by_taps.defjvp
def _tangent_by_taps(
    window: Window, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Pools, and picks the tangents of the maxima; XLA's own gradient fills four index arrays."""
    (x,), (tangent,) = primals, tangents
    y = _by_taps(x, window)

    def first_maximum() -> jax.Array:
        """Returns the number of the tap that has the first maximum of each window."""
        first = jnp.zeros(y.shape, np.min_scalar_type(window.size**2))
        for number, tap in reversed(list(enumerate(taps.taps(window.size)))):
            value = taps.gather(x, tap, window, -np.inf)
            first = jnp.where((value == y) | jnp.isnan(value), first.dtype.type(number), first)
        return first

    first = _evaluate_once(first_maximum, jnp.sum(y[:1, 0, 0, 0]))
    parts = (
        jnp.where(first == number, taps.gather(tangent, tap, window), 0)
        for number, tap in enumerate(taps.taps(window.size))
    )
    return y, taps.add(parts)


def _evaluate_once(function: Callable[[], jax.Array], value: jax.Array) -> jax.Array:
    """Returns function(), which XLA for CPUs would otherwise compute again for each of its uses.

    XLA fuses nothing across a condition, so a condition on `value`, an unknown scalar, separates
    the function from its uses. Both branches are the same. (On CPUs, XLA drops
    lax.optimization_barrier.)
    """
    return lax.cond(value > 0, function, function)


def avg_pool(x: jax.Array) -> jax.Array:
    """2x2 means at stride 2: [N, H, W, C] -> [N, H // 2, W // 2, C].

    Raises:
        InputError: no window fits.
    """
    _check_size(x, 2)
    window, zero = (1, 2, 2, 1), np.array(0, x.dtype)
    return lax.reduce_window(x, zero, lax.add, window, window, "VALID") / 4


def avg_pool_ceil(x: jax.Array) -> jax.Array:
    """2x2 means at stride 2, sizes rounded up; a window at an odd border has fewer pixels."""
    _, height, width, _ = x.shape
    window, stride = (1, 2, 2, 1), (1, 2, 2, 1)
    pad = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    total = lax.reduce_window(x, np.array(0, x.dtype), lax.add, window, stride, pad)
    ones = np.ones((1, height, width, 1), x.dtype)
    return total / lax.reduce_window(ones, np.array(0, x.dtype), lax.add, window, stride, pad)


def _check_size(x: jax.Array, least: int) -> None:
    if min(x.shape[1:3]) < least:
        raise InputError(f"maps of {x.shape[1]}x{x.shape[2]} are too small: use larger images")
