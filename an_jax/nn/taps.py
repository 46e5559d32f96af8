"""Shifted images: the value that each window of a convolution or pooling has at one tap.

Slicing before padding lets XLA's CPU backend compute a sum over taps in one vectorized pass.
"""

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Ends = list[tuple[int, int, int]]  # of rows and columns: padding before, after and between


class Window(NamedTuple):
    """A square window that moves over an image: side, stride and padding in pixels."""

    size: int
    stride: int
    padding: int


def taps(size: int) -> list[tuple[int, int]]:
    """Returns (row, column) of each tap of a square window."""
    return [(row, column) for row in range(size) for column in range(size)]


def output_size(x: jax.Array, window: Window) -> list[int]:
    """Returns (H', W'), the numbers of windows of x [N, H, W, C], rounded down."""
    size, stride, padding = window
    return [(n + 2 * padding - size) // stride + 1 for n in x.shape[1:3]]


def gather(x: jax.Array, tap: tuple[int, int], window: Window, fill: float = 0.0) -> jax.Array:
    """Returns the value of each window at a tap, [N, H', W', C].

    Args:
        x: [N, H, W, C].
        tap: (row, column) in the window.
        window: the window.
        fill: value outside of x.
    """
    _, stride, padding = window
    starts: list[int] = []
    ends: Ends = []
    for position, n, n_out in zip(tap, x.shape[1:3], output_size(x, window), strict=True):
        offset = position - padding  # window i has pixel i * stride + offset at this tap
        start = offset % stride
        before = (start - offset) // stride
        starts.append(start)
        ends.append((before, n_out - before - len(range(start, n, stride)), 0))
    top, left = starts
    return _pad(x[:, top::stride, left::stride], ends, fill)


def scatter(
    y: jax.Array, tap: tuple[int, int], in_size: Sequence[int], window: Window
) -> jax.Array:
    """The transpose of `gather`: spreads y [N, H', W', C] over zeros [N, H, W, C].

    Args:
        y: one value for each window.
        tap: (row, column) in the window.
        in_size: (H, W).
        window: the window.
    """
    _, stride, padding = window
    ends: Ends = []
    for position, n, n_out in zip(tap, in_size, y.shape[1:3], strict=True):
        offset = position - padding
        ends.append((offset, n - offset - (n_out - 1) * stride - 1, stride - 1))
    return _pad(y, ends, 0.0)


def add(parts: Iterable[jax.Array]) -> jax.Array:
    """Adds arrays up, in order."""
    return functools.reduce(operator.add, parts)


def _pad(x: jax.Array, ends: Ends, fill: float) -> jax.Array:
    """Pads the pixels; a negative number crops them."""
    return lax.pad(x, jnp.full((), fill, x.dtype), ((0, 0, 0), *ends, (0, 0, 0)))
