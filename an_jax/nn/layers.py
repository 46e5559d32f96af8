"""Convolution, classifier and container, with PyTorch's integer padding, in NHWC."""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from an_jax.nn.convolution import convolve
from an_jax.nn.initialization import normal, uniform

Layer = Callable[[jax.Array], jax.Array]


class Options(TypedDict):
    """The keyword arguments that all layers share.

    Attributes:
        dtype: compute dtype.
        rngs: source of the initialization.
    """

    dtype: DTypeLike
    rngs: nnx.Rngs


class FeatureMap(NamedTuple):
    """Describes the output of a network's stem (after pooling) or of a stage.

    Attributes:
        stride: pixels of the image from one pixel of the map to the next.
        channels: number of channels.
    """

    stride: int
    channels: int


def at_least_float32(dtype: DTypeLike) -> np.dtype:
    """Returns the dtype of parameters, statistics, attention, logits and loss."""
    return jnp.promote_types(dtype, jnp.float32)


def identity(x: jax.Array) -> jax.Array:
    """Returns x."""
    return x


class Sequential(nnx.List[Layer]):
    """Layers and functions applied in order; indices match those of the released state dicts."""

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self:
            x = layer(x)
        return x


class Dropout(nnx.Module):
    """Dropout of channels (Srivastava et al., 2014; Tompson et al., 2015).

    What is dropped from an image depends on the image's own key alone, not on its place in the
    batch or on the devices.

    Args:
        rate: probability that training drops a channel.
    """

    def __init__(self, rate: float):
        self.rate, self.deterministic = rate, False
        self.keys: jax.Array | None = nnx.data(None)  # [N] random keys; `functional` sets them

    def __call__(self, x: jax.Array) -> jax.Array:
        """Drops channels of x [N, ..., C] and scales the others. Raises ValueError without keys."""
        if self.deterministic or not self.rate:
            return x
        if self.keys is None:
            raise ValueError("dropout needs random keys: train with functional.apply_train")
        keep_one = functools.partial(jax.random.bernoulli, p=1 - self.rate, shape=x.shape[-1:])
        keep = jax.vmap(keep_one)(self.keys)
        keep = jnp.expand_dims(keep, tuple(range(1, x.ndim - 1)))
        return jnp.where(keep, x / (1 - self.rate), 0)


class Conv(nnx.Module):
    """2-D convolution without bias, zero-padded by `padding` pixels on each side.

    Padding is an integer because "SAME" differs from PyTorch in strided layers. The kernel is drawn
    from N(0, 2 / (kh kw C_out)): Kaiming-normal over the fan-out (He et al., 2015).

    Args:
        in_features, out_features: numbers of channels.
        kernel_size, stride, padding: pixels, the same in both directions.
        groups: number of groups of channels that are convolved separately. It divides both numbers
            of channels.
        dtype: compute dtype; the kernel is kept in at least float32.
        rngs: source of the initialization.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        **options: Unpack[Options],
    ):
        shape = (kernel_size, kernel_size, in_features // groups, out_features)
        std = np.sqrt(2.0 / (kernel_size**2 * out_features))
        self.dtype = options["dtype"]
        key = options["rngs"].params()
        self.kernel = nnx.Param(normal(std)(key, shape, at_least_float32(self.dtype)))
        self.stride, self.padding, self.groups = stride, padding, groups

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [N, H, W, C_in] to [N, H', W', C_out] in the compute dtype."""
        kernel = self.kernel[...].astype(self.dtype)
        return convolve(x.astype(self.dtype), kernel, self.stride, self.padding, self.groups)


class Classifier(nnx.Linear):
    """The linear layer that returns the logits, computed in at least float32.

    Args:
        in_features, num_classes: numbers of channels C and of logits.
        std: draw the weight from N(0, std^2), with bias 0. By default, both are drawn from
            U(-1/sqrt(C), 1/sqrt(C)) as in PyTorch.
        dtype: compute dtype of the model.
        rngs: source of the initialization.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        std: float | None = None,
        **options: Unpack[Options],
    ):
        dtype = at_least_float32(options["dtype"])
        default = uniform(in_features**-0.5)
        super().__init__(
            in_features,
            num_classes,
            kernel_init=default if std is None else normal(std),
            bias_init=default if std is None else nnx.initializers.zeros,
            dtype=dtype,
            param_dtype=dtype,
            precision=lax.Precision.HIGHEST,
            rngs=options["rngs"],
        )
