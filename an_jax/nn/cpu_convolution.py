"""Convolutions and their gradients in the forms that XLA computes fastest on CPUs, in NHWC.

`window` has the kernel's size; `gradient` is the gradient with respect to the convolution's output.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from an_jax.nn import taps
from an_jax.nn.taps import Window

# Images and pixels of a block of the dense kernel's gradient: a block fits the caches.
BLOCK_IMAGES = 16
BLOCK_PIXELS = 4096


def pointwise(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """A 1x1 convolution as a matrix product."""
    x = x[:, :: window.stride, :: window.stride]
    product = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
    return product.reshape(*x.shape[:-1], -1)


def depthwise(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Depthwise convolution as a sum over taps.

    XLA vectorizes it if the weights multiply the image before it is sliced.
    """
    wide, kernel = _widen(x, kernel)
    parts = [taps.gather(wide * kernel[tap][0], tap, window) for tap in taps.taps(window.size)]
    return taps.add(parts).astype(x.dtype)


def depthwise_input_gradient(
    kernel: jax.Array, gradient: jax.Array, in_size: Sequence[int], window: Window
) -> jax.Array:
    """Gradient with respect to x [N, H, W, C], where in_size is (H, W).

    The transpose of the sum over taps, with products before the pixels are spread.
    """
    wide, kernel = _widen(gradient, kernel)
    parts = [
        taps.scatter(wide * kernel[tap][0], tap, in_size, window) for tap in taps.taps(window.size)
    ]
    return taps.add(parts).astype(gradient.dtype)


def depthwise_kernel_gradient(x: jax.Array, gradient: jax.Array, window: Window) -> jax.Array:
    """Kernel gradient of a depthwise convolution.

    Sums row by row, so that one row of all taps stays in the cache.
    """
    (size, stride, _), dtype = window, x.dtype
    x, gradient = _widen(_pad(x, gradient, window), gradient)
    n, height, width, _ = gradient.shape

    def add_row(i: jax.Array, totals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        row = lax.dynamic_slice_in_dim(gradient[i // height], i % height, 1)[0]
        lines = lax.dynamic_slice_in_dim(x[i // height], i % height * stride, size)
        return tuple(
            total + lines[i, j : j + (width - 1) * stride + 1 : stride] * row
            for total, (i, j) in zip(totals, taps.taps(size), strict=True)
        )

    zero = jnp.zeros_like(gradient[0, 0])
    totals = lax.fori_loop(0, n * height, add_row, (zero,) * size**2)
    sums = jnp.stack([jnp.sum(total, axis=0) for total in totals])
    return sums.reshape(size, size, 1, -1).astype(dtype)


def dense_kernel_gradient(x: jax.Array, gradient: jax.Array, window: Window) -> jax.Array:
    """Kernel gradient of an ungrouped convolution, summed over blocks of images and rows."""
    size, stride, _ = window
    x = _pad(x, gradient, window)
    n, height, width, _ = gradient.shape
    images = _largest_divisor(n, BLOCK_IMAGES)
    rows = _largest_divisor(height, BLOCK_PIXELS // (images * width))
    blocks_per_image = height // rows

    def block_gradient(block: jax.Array) -> jax.Array:
        first, top = block // blocks_per_image * images, block % blocks_per_image * rows
        gradient_block = lax.dynamic_slice_in_dim(gradient, first, images)
        gradient_block = lax.dynamic_slice_in_dim(gradient_block, top, rows, axis=1)
        x_rows = (rows - 1) * stride + size
        x_block = lax.dynamic_slice_in_dim(x, first, images)
        x_block = lax.dynamic_slice_in_dim(x_block, top * stride, x_rows, axis=1)
        # The batch and channel axes are swapped. In loops, XLA uses its fast convolution only if
        # they are transposed here and not in dimension_numbers.
        return lax.conv_general_dilated(
            x_block.transpose(3, 1, 2, 0),
            gradient_block.transpose(1, 2, 0, 3),
            window_strides=(1, 1),
            padding="VALID",
            rhs_dilation=(stride, stride),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=_sum_dtype(x.dtype),
        )

    blocks = lax.map(block_gradient, jnp.arange(n // images * blocks_per_image))
    return jnp.sum(blocks, axis=0).transpose(1, 2, 0, 3).astype(x.dtype)


def _sum_dtype(dtype: DTypeLike) -> np.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _widen(*arrays: jax.Array) -> Iterator[jax.Array]:
    """Casts arrays to the dtype in which they are summed."""
    return (a.astype(_sum_dtype(a.dtype)) for a in arrays)


def _pad(x: jax.Array, gradient: jax.Array, window: Window) -> jax.Array:
    """Pads x with zeros, and crops the pixels that no window reaches."""
    size, stride, padding = window
    ends = [
        (padding, (n_out - 1) * stride + size - padding - n, 0)
        for n, n_out in zip(x.shape[1:3], gradient.shape[1:3], strict=True)
    ]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *ends, (0, 0, 0)))


def _largest_divisor(n: int, limit: int) -> int:
    """Returns the largest divisor of n up to the limit, and 1 if the limit is below 1."""
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= max(limit, 1))
