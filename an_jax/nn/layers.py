"""Convolution, classifier and container, with PyTorch's integer padding, in NHWC."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from an_jax.nn.convolution import convolve


def at_least_float32(dtype):
    """The dtype of parameters, statistics, attention, logits and loss for a compute `dtype`."""
    return jnp.promote_types(dtype, jnp.float32)


def normal(key, shape, dtype) -> jax.Array:
    """Standard normal numbers; drawn flat, which compiles four times as fast as in 4-D."""
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def identity(x: jax.Array) -> jax.Array:
    """x."""
    return x


class Sequential(nnx.List):
    """Layers and functions applied in order; indices match those of the released state dicts."""

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self:
            x = layer(x)
        return x


class Conv(nnx.Module):
    """2-D convolution without bias, zero-padded by `padding` pixels on each side.

    Integer padding, because "SAME" differs from PyTorch in strided layers. The kernel is drawn
    from N(0, 2 / (kh kw C_out)): Kaiming-normal over the fan-out (He et al., 2015).

    Args:
        in_features, out_features: numbers of channels.
        kernel_size, stride, padding: pixels, the same in both directions.
        groups: the channels fall into as many groups, each convolved by itself; both numbers of
            channels are multiples of it.
        dtype: compute dtype; the kernel is kept in at least float32.
    """

    def __init__(
        self,
        in_features,
        out_features,
        kernel_size,
        *,
        stride=1,
        padding=0,
        groups=1,
        dtype,
        rngs,
    ):
        shape = (kernel_size, kernel_size, in_features // groups, out_features)
        std = np.sqrt(2.0 / (kernel_size**2 * out_features))
        self.kernel = nnx.Param(std * normal(rngs.params(), shape, at_least_float32(dtype)))
        self.stride, self.padding, self.groups, self.dtype = stride, padding, groups, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, C_in] -> [N, H', W', C_out] in the compute dtype."""
        kernel = self.kernel[...].astype(self.dtype)
        return convolve(x.astype(self.dtype), kernel, self.stride, self.padding, self.groups)


class Classifier(nnx.Linear):
    """The linear layer that gives the logits, computed in at least float32.

    Args:
        in_features, num_classes: numbers of channels C and of logits.
        std: draw the weight from N(0, std^2), the bias 0; if not given, both are drawn from
            U(-1/sqrt(C), 1/sqrt(C)), PyTorch's default.
        dtype: compute dtype of the model.
    """

    def __init__(self, in_features, num_classes, *, std=None, dtype, rngs):
        dtype, limit = at_least_float32(dtype), in_features**-0.5

        def uniform(key, shape, dtype, **_):
            return jax.random.uniform(key, shape, dtype, -limit, limit)

        super().__init__(
            in_features,
            num_classes,
            kernel_init=uniform if std is None else nnx.initializers.normal(std),
            bias_init=uniform if std is None else nnx.initializers.zeros,
            dtype=dtype,
            param_dtype=dtype,
            precision=lax.Precision.HIGHEST,
            rngs=rngs,
        )
