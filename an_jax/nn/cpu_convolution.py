"""Convolutions and their gradients in the forms that XLA computes fastest on CPUs, in NHWC.

The arguments are those of convolution.convolve; `gradient` is that by its output.
"""

import itertools

import jax.numpy as jnp
from jax import lax

from an_jax.nn import taps

# Images and pixels that a block of the kernel's gradient sums over: what stays in the caches.
BLOCK_IMAGES = 16
BLOCK_PIXELS = 4096


def pointwise(x, kernel, stride):
    """A 1x1 convolution as a matrix product."""
    x = x[:, ::stride, ::stride]
    product = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
    return product.reshape(*x.shape[:-1], -1)


def depthwise(x, kernel, stride, padding):
    """Sum over the taps of what each sees times its weight: multiplied first, it vectorizes."""
    size = kernel.shape[0]
    out_size = [(n + 2 * padding - size) // stride + 1 for n in x.shape[1:3]]
    wide, kernel = _widened(x, kernel)
    parts = (
        taps.gather(wide * kernel[tap][0], tap, out_size, stride, padding)
        for tap in itertools.product(range(size), repeat=2)
    )
    return sum(parts).astype(x.dtype)


def depthwise_input_gradient(x, kernel, gradient, stride, padding):
    """The transpose of that sum."""
    gradient, kernel = _widened(gradient, kernel)
    parts = (
        taps.scatter(gradient * kernel[tap][0], tap, x.shape[1:3], stride, padding)
        for tap in itertools.product(range(kernel.shape[0]), repeat=2)
    )
    return sum(parts).astype(x.dtype)


def depthwise_kernel_gradient(x, kernel, gradient, stride, padding):
    """Row by row, so that the rows of all taps stay in the cache."""
    size = kernel.shape[0]
    x, gradient = _widened(_padded(x, gradient, size, stride, padding), gradient)
    n, height, width, _ = gradient.shape

    def add_row(i, totals):
        row = lax.dynamic_slice_in_dim(gradient[i // height], i % height, 1)[0]
        lines = lax.dynamic_slice_in_dim(x[i // height], i % height * stride, size)
        return tuple(
            total + lines[i, j : j + (width - 1) * stride + 1 : stride] * row
            for total, (i, j) in zip(totals, itertools.product(range(size), repeat=2), strict=True)
        )

    zero = jnp.zeros_like(gradient[0, 0])
    totals = lax.fori_loop(0, n * height, add_row, (zero,) * size**2)
    totals = jnp.stack([jnp.sum(total, axis=0) for total in totals])
    return totals.reshape(kernel.shape).astype(kernel.dtype)


def kernel_gradient(x, kernel, gradient, stride, padding):
    """Of a convolution in one group: the sum over blocks of images and rows."""
    size = kernel.shape[0]
    x = _padded(x, gradient, size, stride, padding)
    n, height, width, _ = gradient.shape
    images = _divisor(n, BLOCK_IMAGES)
    rows = _divisor(height, BLOCK_PIXELS // (images * width))
    per_image = height // rows

    def of_block(block):
        first, top = block // per_image * images, block % per_image * rows
        part = lax.dynamic_slice_in_dim(gradient, first, images)
        part = lax.dynamic_slice_in_dim(part, top, rows, axis=1)
        seen = lax.dynamic_slice_in_dim(x, first, images)
        seen = lax.dynamic_slice_in_dim(seen, top * stride, (rows - 1) * stride + size, axis=1)
        # Images and channels change places; said in dimension_numbers, loops would not get the
        # fast convolution.
        return lax.conv_general_dilated(
            seen.transpose(3, 1, 2, 0),
            part.transpose(1, 2, 0, 3),
            window_strides=(1, 1),
            padding="VALID",
            rhs_dilation=(stride, stride),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            preferred_element_type=_wide(x.dtype),
        )

    blocks = lax.map(of_block, jnp.arange(n // images * per_image))
    return jnp.sum(blocks, axis=0).transpose(1, 2, 0, 3).astype(kernel.dtype)


def _wide(dtype):
    """What sums are taken in."""
    return jnp.promote_types(dtype, jnp.float32)


def _widened(*arrays):
    return (a.astype(_wide(a.dtype)) for a in arrays)


def _padded(x, gradient, size, stride, padding):
    """x with zeros around it, and without what no window reaches."""
    ends = [
        (padding, (n_out - 1) * stride + size - padding - n, 0)
        for n, n_out in zip(x.shape[1:3], gradient.shape[1:3], strict=True)
    ]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *ends, (0, 0, 0)))


def _divisor(n: int, limit: int) -> int:
    """The largest divisor of n up to the limit, at least 1."""
    return max(d for d in range(1, n + 1) if n % d == 0 and d <= max(limit, 1))
