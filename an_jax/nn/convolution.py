"""2-D convolution: one operation on accelerators, and on CPUs the form that XLA computes fastest.

XLA's CPU convolutions are slow for 1x1 kernels, for depthwise kernels and in gradients with respect
to the kernel. The forms of cpu_convolution give the same numbers up to rounding (docs/benchmarks.md
has the times). On TPUs matrix products would move more bytes, so the platform selects the form.

The gradients are written by hand, so there is no forward-mode differentiation (`jax.jvp`).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax

from an_jax.nn import cpu_convolution
from an_jax.nn.taps import Window

Pair = tuple[jax.Array, jax.Array]  # x and kernel, or the gradients with respect to them


class CpuForms(NamedTuple):
    """How CPUs compute a kind of convolution; None where XLA's own operation is as fast.

    Attributes:
        forward: (x, kernel, window) -> output.
        backward: (x, kernel, gradient with respect to the output, window) -> gradients with respect
            to x and kernel.
    """

    forward: Callable[[jax.Array, jax.Array, Window], jax.Array] | None = None
    backward: Callable[[jax.Array, jax.Array, jax.Array, Window], Pair] | None = None


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    """Convolves images, zero-padded by `padding` pixels on each side.

    Args:
        x: [N, H, W, C_in].
        kernel: [k, k, C_in // groups, C_out], of the same dtype.
        stride, padding: pixels, the same in both directions.
        groups: number of groups of channels that are convolved separately.

    Returns:
        [N, H', W', C_out] of the same dtype.
    """
    # Under jax.shard_map both must vary over the same axes, as the gradients below do. Autodiff of
    # the cast sums the gradient of a replicated argument over the devices.
    axes = [jax.typeof(a).manual_axis_type.varying for a in (x, kernel)]
    x = lax.pcast(x, tuple(axes[1] - axes[0]), to="varying")
    kernel = lax.pcast(kernel, tuple(axes[0] - axes[1]), to="varying")
    return _convolve(x, kernel, Window(kernel.shape[0], stride, padding), groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: jax.Array, kernel: jax.Array, window: Window, groups: int) -> jax.Array:
    on_cpu = CPU_FORMS[_kind(x, kernel, window, groups)].forward
    if on_cpu is None:
        return _native(x, kernel, window, groups)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: on_cpu(x, kernel, window),
        default=lambda x, kernel: _native(x, kernel, window, groups),
    )


def _forward(
    x: jax.Array, kernel: jax.Array, window: Window, groups: int
) -> tuple[jax.Array, Pair]:
    return _convolve(x, kernel, window, groups), (x, kernel)


def _backward(window: Window, groups: int, saved: Pair, gradient: jax.Array) -> Pair:
    on_cpu = CPU_FORMS[_kind(*saved, window, groups)].backward
    if on_cpu is None:
        return _native_gradients(*saved, gradient, window, groups)
    return lax.platform_dependent(
        *saved,
        gradient,
        cpu=lambda x, kernel, gradient: on_cpu(x, kernel, gradient, window),
        default=lambda x, kernel, gradient: _native_gradients(x, kernel, gradient, window, groups),
    )


_convolve.defvjp(_forward, _backward)


def _native(x: jax.Array, kernel: jax.Array, window: Window, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(window.stride,) * 2,
        padding=((window.padding,) * 2,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _native_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, window: Window, groups: int
) -> Pair:
    native = functools.partial(_native, window=window, groups=groups)
    return jax.vjp(native, x, kernel)[1](gradient)


def _pointwise_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, window: Window
) -> Pair:
    pointwise = functools.partial(cpu_convolution.pointwise, window=window)
    return jax.vjp(pointwise, x, kernel)[1](gradient)


def _dense_gradients(x: jax.Array, kernel: jax.Array, gradient: jax.Array, window: Window) -> Pair:
    (x_gradient,) = jax.vjp(lambda x: _native(x, kernel, window, groups=1), x)[1](gradient)
    return x_gradient, cpu_convolution.dense_kernel_gradient(x, kernel, gradient, window)


CPU_FORMS = {
    "pointwise": CpuForms(cpu_convolution.pointwise, _pointwise_gradients),
    "depthwise": CpuForms(cpu_convolution.depthwise, cpu_convolution.depthwise_gradients),
    "dense": CpuForms(backward=_dense_gradients),
    "other": CpuForms(),
}


def _kind(x: jax.Array, kernel: jax.Array, window: Window, groups: int) -> str:
    """Returns the convolution's key in CPU_FORMS."""
    if x.shape[0] == 0:
        return "other"
    if groups > 1:
        return "depthwise" if kernel.shape[2:] == (1, groups) else "other"
    if kernel.shape[:2] == (1, 1) and window.padding == 0:
        return "pointwise"
    # The blocks of the dense gradient need a number of images, not an exported program's symbol.
    return "dense" if isinstance(x.shape[0], int) else "other"
