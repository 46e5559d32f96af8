"""2-D convolution: one operation on accelerators; on CPUs the form that XLA computes fastest there.

XLA's CPU convolutions are slow for 1x1 kernels, for depthwise ones and in gradients by the kernel,
where the forms of cpu_convolution give the same numbers up to rounding (docs/benchmarks.md has the
times). On TPUs matrix products would move more bytes, so the platform decides, here and nowhere
else.

The gradients are given by hand, so there is no forward-mode differentiation (`jax.jvp`).
"""

import functools

import jax
from jax import lax

from an_jax.nn import cpu_convolution


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
    # Under jax.shard_map both must vary over the same axes, as the gradients by hand do; autodiff
    # of the cast sums the gradient of what is the same on all devices.
    axes = [jax.typeof(a).manual_axis_type.varying for a in (x, kernel)]
    x = lax.pcast(x, tuple(axes[1] - axes[0]), to="varying")
    kernel = lax.pcast(kernel, tuple(axes[0] - axes[1]), to="varying")
    return _convolve(x, kernel, stride, padding, groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x, kernel, stride, padding, groups):
    forms = {"default": functools.partial(_native, stride=stride, padding=padding, groups=groups)}
    match _kind(x, kernel, padding, groups):
        case "pointwise":
            forms["cpu"] = functools.partial(cpu_convolution.pointwise, stride=stride)
        case "depthwise":
            forms["cpu"] = functools.partial(
                cpu_convolution.depthwise, stride=stride, padding=padding
            )
    return lax.platform_dependent(x, kernel, **forms)


def _forward(x, kernel, stride, padding, groups):
    return _convolve(x, kernel, stride, padding, groups), (x, kernel)


def _backward(stride, padding, groups, saved, gradient):
    """Gradients by x and the kernel, given that by the output."""
    x, kernel = saved
    native = functools.partial(_native, stride=stride, padding=padding, groups=groups)
    pointwise = functools.partial(cpu_convolution.pointwise, stride=stride)

    def by_autodiff(x, kernel, gradient, form=native):
        return jax.vjp(form, x, kernel)[1](gradient)

    def depthwise(x, kernel, gradient):
        return (
            cpu_convolution.depthwise_input_gradient(x, kernel, gradient, stride, padding),
            cpu_convolution.depthwise_kernel_gradient(x, kernel, gradient, stride, padding),
        )

    def dense(x, kernel, gradient):
        (by_x,) = jax.vjp(lambda x: native(x, kernel), x)[1](gradient)
        return by_x, cpu_convolution.kernel_gradient(x, kernel, gradient, stride, padding)

    forms = {"default": by_autodiff}
    match _kind(x, kernel, padding, groups):
        case "pointwise":
            forms["cpu"] = functools.partial(by_autodiff, form=pointwise)
        case "depthwise":
            forms["cpu"] = depthwise
        case "dense" if isinstance(x.shape[0], int):  # blocks need a number, not a symbol
            forms["cpu"] = dense
    return lax.platform_dependent(x, kernel, gradient, **forms)


_convolve.defvjp(_forward, _backward)


def _kind(x, kernel, padding, groups):
    if x.shape[0] == 0:
        return "empty"
    if groups > 1:
        return "depthwise" if kernel.shape[2:] == (1, groups) else "grouped"
    return "pointwise" if kernel.shape[:2] == (1, 1) and padding == 0 else "dense"


def _native(x, kernel, stride, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
