"""2-D convolution: one operation on accelerators, and on CPUs the form that XLA computes fastest.

XLA's CPU convolutions are slow for 1x1 and for depthwise kernels. The forms of cpu_convolution give
the same numbers up to rounding (docs/benchmarks.md has the times). On TPUs matrix products would
move more bytes, so the platform selects the form.

The scalar product of y with the convolution of x and a kernel is linear in each of the three. One
primitive computes the gradient with respect to any of them from the other two. Its derivatives are
the primitive again, so that every mode and order of differentiation uses the fast forms.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from an_jax.nn import cpu_convolution
from an_jax.nn.taps import Window, output_size

ROLES = ("x", "kernel", "y")
Form = Callable[[jax.Array, jax.Array, Window], jax.Array]


class Geometry(NamedTuple):
    """The shapes and settings that a convolution shares with its derivatives.

    Attributes:
        x: [N, H, W, C_in].
        kernel: [k, k, C_in // groups, C_out].
        y: [N, H', W', C_out].
        window: of the kernel.
        groups: number of groups of channels that are convolved separately.
    """

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    y: tuple[int, ...]
    window: Window
    groups: int


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    """Convolves images, zero-padded by `padding` pixels on each side.

    Args:
        x: [N, H, W, C_in].
        kernel: [k, k, C_in // groups, C_out], of the same dtype.
        stride, padding: pixels, the same in both directions.
        groups: number of groups of channels that are convolved separately.

    Returns:
        [N, H', W', C_out] of the same dtype.

    Raises:
        ValueError: channels or dtypes of images and kernel do not fit.
    """
    # Under jax.shard_map both must vary over the same axes. Autodiff of the cast sums the gradient
    # of a replicated argument over the devices.
    axes = [jax.typeof(a).manual_axis_type.varying for a in (x, kernel)]
    x = lax.pcast(x, tuple(axes[1] - axes[0]), to="varying")
    kernel = lax.pcast(kernel, tuple(axes[0] - axes[1]), to="varying")
    window = Window(kernel.shape[0], stride, padding)
    if x.shape[3] != kernel.shape[2] * groups or x.dtype != kernel.dtype:
        raise ValueError(
            f"a {kernel.dtype} kernel {kernel.shape} in {groups} groups does not fit {x.dtype} "
            f"images {x.shape}"
        )
    y_shape = (x.shape[0], *output_size(x, window), kernel.shape[3])
    geometry = Geometry(x.shape, kernel.shape, y_shape, window, groups)
    return _convolution.bind(x, kernel, result="y", geometry=geometry)


def _compute(a: jax.Array, b: jax.Array, *, result: str, geometry: Geometry) -> jax.Array:
    """Computes the result, one of ROLES, from the other two in their order."""
    native, on_cpu = (
        functools.partial(form, result=result, geometry=geometry) for form in (_native, _on_cpu)
    )
    return lax.platform_dependent(a, b, cpu=on_cpu, default=native)


def _native(a: jax.Array, b: jax.Array, result: str, geometry: Geometry) -> jax.Array:
    forward = functools.partial(_lax_conv, groups=geometry.groups)
    return _apply_or_transpose(forward, a, b, result, geometry)


def _on_cpu(a: jax.Array, b: jax.Array, result: str, geometry: Geometry) -> jax.Array:
    kernel, window, groups = geometry.kernel, geometry.window, geometry.groups
    if groups == 1 and kernel[:2] == (1, 1) and window.padding == 0:
        return _apply_or_transpose(cpu_convolution.pointwise, a, b, result, geometry)
    if groups == 1 or kernel[2:] != (1, groups):
        return _native(a, b, result, geometry)
    match result:
        case "y":
            return cpu_convolution.depthwise(a, b, window)
        case "x":
            return cpu_convolution.depthwise_input_gradient(a, b, geometry.x[1:3], window)
    return cpu_convolution.depthwise_kernel_gradient(a, b, window)


def _apply_or_transpose(
    forward: Form, a: jax.Array, b: jax.Array, result: str, geometry: Geometry
) -> jax.Array:
    """Computes y by `forward`, or x or the kernel by its transpose."""
    if result == "y":
        return forward(a, b, geometry.window)

    def linear(unknown: jax.Array) -> jax.Array:
        x, kernel = (unknown, a) if result == "x" else (a, unknown)
        return forward(x, kernel, geometry.window)

    shape = jax.typeof(b).update(shape=getattr(geometry, result))
    return jax.linear_transpose(linear, shape)(b)[0]


def _lax_conv(x: jax.Array, kernel: jax.Array, window: Window, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(window.stride,) * 2,
        padding=((window.padding,) * 2,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _type(a: Any, b: Any, *, result: str, geometry: Geometry) -> Any:
    return a.update(shape=getattr(geometry, result))


def _batch(arrays: Sequence[jax.Array], axes: Sequence[int | None], **settings: Any) -> tuple:
    return jax.vmap(functools.partial(_compute, **settings), tuple(axes))(*arrays), 0


def _transpose(
    position: int, cotangent: jax.Array, a: Any, b: Any, *, result: str, geometry: Geometry
) -> jax.Array:
    """Returns the cotangent of an operand: it and the result exchange their roles."""
    arrays = dict(zip((role for role in ROLES if role != result), (a, b), strict=True))
    new_result = list(arrays)[position]
    arrays[result] = cotangent
    operands = (arrays[role] for role in ROLES if role != new_result)
    return _convolution.bind(*operands, result=new_result, geometry=geometry)


_convolution = Primitive("an_jax_convolution")
_convolution.def_impl(jax.jit(_compute, static_argnames=("result", "geometry")))
_convolution.def_abstract_eval(_type)
ad.defbilinear(_convolution, *(functools.partial(_transpose, i) for i in (0, 1)))
batching.primitive_batchers[_convolution] = _batch
mlir.register_lowering(_convolution, mlir.lower_fun(_compute, multiple_results=False))
