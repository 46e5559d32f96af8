"""What the windows of a convolution or pooling see at one of their taps, as shifted images.

Written so that XLA for CPUs computes sums over taps in one vectorized pass: rows and columns are
picked before they are padded, not after.
"""

import jax
import jax.numpy as jnp
from jax import lax


def gather(x, tap, out_size, stride: int, padding: int, fill=0.0) -> jax.Array:
    """The value that each window sees at a tap.

    Args:
        x: [N, H, W, C].
        tap: (row, column) in the window.
        out_size: (H', W'), numbers of windows.
        stride, padding: of the windows, pixels.
        fill: what is seen outside of x.

    Returns:
        [N, H', W', C].
    """
    starts, ends = [], []
    for at, n, n_out in zip(tap, x.shape[1:3], out_size, strict=True):
        offset = at - padding  # window a sees pixel a * stride + offset
        start = offset % stride
        low = (start - offset) // stride
        starts.append(start)
        ends.append((low, n_out - low - len(range(start, n, stride)), 0))
    top, left = starts
    return _pad(x[:, top::stride, left::stride], ends, fill)


def scatter(y, tap, in_size, stride: int, padding: int) -> jax.Array:
    """The transpose of `gather`: y [N, H', W', C] put where it was seen, [N, H, W, C], else 0."""
    ends = []
    for at, n, n_out in zip(tap, in_size, y.shape[1:3], strict=True):
        offset = at - padding
        ends.append((offset, n - offset - (n_out - 1) * stride - 1, stride - 1))
    return _pad(y, ends, 0.0)


def _pad(x, ends, fill):
    """lax.pad of the pixels; negative ends are cut off."""
    return lax.pad(x, jnp.full((), fill, x.dtype), ((0, 0, 0), *ends, (0, 0, 0)))
