"""Convolutions and their gradients in the forms that XLA computes fastest on CPUs, in NHWC.

`window` has the kernel's size; `gradient` is the gradient with respect to the convolution's output.
"""

import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from an_jax.nn import taps
from an_jax.nn.taps import Window


def pointwise(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """A 1x1 convolution as a matrix product."""
    x = x[:, :: window.stride, :: window.stride]
    *sizes, channels = x.shape
    product = x.reshape(math.prod(sizes), channels) @ kernel[0, 0]
    return product.reshape(*sizes, kernel.shape[-1])


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

    Adds the products of all taps image by image. XLA vectorizes this sum over images, but not sums
    over pixels.
    """
    wide_x, gradient = _widen(x, gradient)
    all_taps = taps.taps(window.size)

    def add_image(totals: list[jax.Array], arrays: tuple[jax.Array, ...]) -> tuple[list, None]:
        image, gradient = arrays
        values = (taps.gather(image[None], tap, window)[0] for tap in all_taps)
        return [total + value * gradient for total, value in zip(totals, values, strict=True)], None

    # With a batch axis of one image in the totals, XLA takes twice the time.
    zeros = jnp.zeros_like(gradient, shape=gradient.shape[1:])
    totals, _ = lax.scan(add_image, [zeros for _ in all_taps], (wide_x, gradient))
    sums = jnp.stack([jnp.sum(total, axis=(0, 1)) for total in totals])
    return sums.reshape(window.size, window.size, 1, -1).astype(x.dtype)


def _widen(*arrays: jax.Array) -> Iterator[jax.Array]:
    """Casts arrays to the dtype in which they are summed."""
    return (a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in arrays)
