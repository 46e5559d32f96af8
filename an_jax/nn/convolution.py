"""2-D convolution: one operation on accelerators; on CPUs the form that XLA computes fastest there.

XLA's CPU convolutions are slow for 1x1 kernels, for depthwise ones and in gradients by the kernel,
where the matrix products, shifted products and blocks below give the same numbers up to rounding
(docs/benchmarks.md has the times). On TPUs matrix products would move more bytes, so the platform
decides, here and nowhere else.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax

from an_jax.nn import taps

# Images and pixels that a block of a CPU's kernel gradient sums over: what stays in its caches.
BLOCK_IMAGES = 16
BLOCK_PIXELS = 4096


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolve(x, kernel, stride: int, padding: int, groups: int) -> jax.Array:
    """Convolution of images, zero-padded by `padding` pixels on each side.

    Args:
        x: [N, H, W, C_in].
        kernel: [k, k, C_in // groups, C_out], of the same dtype.
        stride, padding: pixels, the same in both directions.
        groups: the channels fall into as many groups, each convolved by itself.

    Returns:
        [N, H', W', C_out] of the same dtype.
    """
    forms = {"default": functools.partial(_native, stride=stride, padding=padding, groups=groups)}
    if _is_pointwise(kernel, padding, groups):
        forms["cpu"] = functools.partial(_pointwise, stride=stride)
    elif _is_depthwise(kernel, groups):
        forms["cpu"] = functools.partial(_depthwise, stride=stride, padding=padding)
    return lax.platform_dependent(x, kernel, **forms)


def _forward(x, kernel, stride, padding, groups):
    return convolve(x, kernel, stride, padding, groups), (x, kernel)


def _backward(stride, padding, groups, saved, gradient):
    """Gradients by x and the kernel, given that by the output."""
    x, kernel = saved
    native = functools.partial(_native, stride=stride, padding=padding, groups=groups)
    pointwise = functools.partial(_pointwise, stride=stride)

    def by_autodiff(x, kernel, gradient, form=native):
        return jax.vjp(form, x, kernel)[1](gradient)

    def depthwise(x, kernel, gradient):
        return (
            _depthwise_input_gradient(x, kernel, gradient, stride, padding),
            _depthwise_kernel_gradient(x, kernel, gradient, stride, padding),
        )

    def dense(x, kernel, gradient):
        (by_x,) = jax.vjp(lambda x: native(x, kernel), x)[1](gradient)
        return by_x, _kernel_gradient(x, kernel, gradient, stride, padding)

    forms = {"default": by_autodiff}
    if _is_pointwise(kernel, padding, groups):
        forms["cpu"] = functools.partial(by_autodiff, form=pointwise)
    elif _is_depthwise(kernel, groups):
        forms["cpu"] = depthwise
    elif groups == 1:
        forms["cpu"] = dense
    return lax.platform_dependent(x, kernel, gradient, **forms)


convolve.defvjp(_forward, _backward)


def _is_pointwise(kernel, padding, groups):
    return kernel.shape[:2] == (1, 1) and padding == 0 and groups == 1


def _is_depthwise(kernel, groups):
    return groups > 1 and kernel.shape[2:] == (1, groups)


def _native(x, kernel, stride, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _pointwise(x, kernel, stride):
    """A 1x1 convolution as a matrix product."""
    x = x[:, ::stride, ::stride]
    product = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
    return product.reshape(*x.shape[:-1], -1)


def _depthwise(x, kernel, stride, padding):
    """Sum over the taps of what each sees times its weight: multiplied first, it vectorizes."""
    size = kernel.shape[0]
    out_size = [(n + 2 * padding - size) // stride + 1 for n in x.shape[1:3]]
    return sum(
        taps.gather(x * kernel[tap][0], tap, out_size, stride, padding)
        for tap in itertools.product(range(size), repeat=2)
    )


def _depthwise_input_gradient(x, kernel, gradient, stride, padding):
    return sum(
        taps.scatter(gradient * kernel[tap][0], tap, x.shape[1:3], stride, padding)
        for tap in itertools.product(range(kernel.shape[0]), repeat=2)
    )


def _depthwise_kernel_gradient(x, kernel, gradient, stride, padding):
    """Row by row, so that the rows of all taps stay in the cache."""
    size = kernel.shape[0]
    x = _padded(x, gradient, size, stride, padding)
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
    return jnp.stack([jnp.sum(total, axis=0) for total in totals]).reshape(kernel.shape)


def _kernel_gradient(x, kernel, gradient, stride, padding):
    """The sum over blocks of images and rows of the gradient by the kernel."""
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
        )

    blocks = jnp.arange(n // images * per_image)
    return jnp.sum(lax.map(of_block, blocks), axis=0).transpose(1, 2, 0, 3)


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
