"""Batch and group normalization with PyTorch's semantics, computed from per-sample moments."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from an_jax.nn.initialization import full
from an_jax.nn.layers import at_least_float32
from an_jax.nn.moments import Moments, normalize, sample_moments, variance

EPSILON = 1e-5
MOMENTUM = 0.1


class BatchNorm(nnx.Module):
    """Batch normalization (Ioffe & Szegedy, 2015) as PyTorch computes it.

    Training normalizes with the biased variance of the batch and updates the running variance with
    the unbiased one: new running value = 0.9 old + 0.1 batch. Statistics are kept in at least
    float32. Under `jax.shard_map` the batch is the device's own shard, as in PyTorch's data
    parallelism. With `axis_name` it is the shards of all devices along that mesh axis.

    Args:
        num_features: number of channels C.
        affine: whether to scale and shift the result.
        zero_init: start with scale 0, so that a residual block starts as the identity.
        dtype: compute dtype of the output.
    """

    def __init__(
        self,
        num_features: int,
        *,
        affine: bool = True,
        zero_init: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs | None = None,
    ):
        param_dtype = at_least_float32(dtype)
        zeros, ones = (full(num_features, value, param_dtype) for value in (0, 1))
        self.scale = nnx.Param(zeros if zero_init else ones) if affine else None
        self.bias = nnx.Param(zeros) if affine else None
        self.mean, self.var = nnx.BatchStat(zeros), nnx.BatchStat(ones)
        self.use_running_average = False
        self.axis_name: str | None = None
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes x [N, ..., C]. Raises ValueError on one value per channel in training."""
        moments = None if self.use_running_average else self.moments(x)
        mean, var = self.statistics(moments)
        scale = 1.0 if self.scale is None else self.scale[...]
        bias = 0.0 if self.bias is None else self.bias[...]
        return normalize(x, mean, var, scale, bias, EPSILON, self.dtype)

    def moments(self, x: jax.Array) -> Moments:
        """Returns per-sample moments of x about the running mean."""
        return sample_moments(x, self.mean[...])

    def statistics(self, moments: Moments | None) -> tuple[jax.Array, jax.Array]:
        """Returns the mean and variance [C] to normalize with.

        In training they are the batch's, and update the running ones. In evaluation they are the
        running ones, and `moments` may be None.
        """
        if self.use_running_average:
            return self.mean[...], self.var[...]
        assert moments is not None
        count = moments.mean.shape[0] * moments.num_pixels
        if self.axis_name is not None:
            count *= jax.lax.axis_size(self.axis_name)
        if count < 2:
            raise ValueError("training needs more than one value per channel: use more images")
        (mean, var), running = _batch_statistics(
            moments, (self.mean[...], self.var[...]), count, self.axis_name
        )
        # `self.mean[...] = ` asks a tracer for its sharding, which takes minutes in deep networks.
        for stored, value in zip((self.mean, self.var), running, strict=True):
            stored.set_value(value)
        return mean, var


@functools.partial(jax.jit, static_argnames=("count", "axis_name"))
def _batch_statistics(
    moments: Moments, running: tuple[jax.Array, jax.Array], count: int, axis_name: str | None
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns the mean and variance [C] of the batch, and the updated running ones.

    Args:
        moments: of this device's samples.
        running: the running mean and variance.
        count: number of values per channel on all devices.
        axis_name: the mesh axis of the devices; None for this device alone.
    """
    offset, square = jnp.mean(moments.mean, axis=0), jnp.mean(moments.square, axis=0)
    if axis_name is not None:
        offset, square = jax.lax.pmean((offset, square), axis_name)
    mean, var = offset + moments.shift, variance(offset, square)
    unbiased = var * (count / (count - 1))
    new_mean = (1 - MOMENTUM) * running[0] + MOMENTUM * mean
    new_var = (1 - MOMENTUM) * running[1] + MOMENTUM * unbiased
    return (mean, var), (new_mean, new_var)


class GroupNorm(nnx.Module):
    """Group normalization (Wu & He, 2018): statistics of each sample over groups of channels.

    Args:
        num_features: number of channels C, a multiple of num_groups.
        affine: whether to scale and shift the result.
        dtype: compute dtype of the output.

    Raises:
        ValueError: num_groups does not divide the channels.
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int,
        *,
        affine: bool = True,
        dtype: DTypeLike,
        rngs: nnx.Rngs | None = None,
    ):
        if num_features % num_groups:
            raise ValueError(f"{num_features} channels do not divide into {num_groups} groups")
        param_dtype = at_least_float32(dtype)
        self.scale = nnx.Param(full(num_features, 1, param_dtype)) if affine else None
        self.bias = nnx.Param(full(num_features, 0, param_dtype)) if affine else None
        self.num_groups, self.dtype = num_groups, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes x [N, ..., C]."""
        pixel_axes = tuple(range(1, x.ndim - 1))
        mean, var = (jnp.expand_dims(s, pixel_axes) for s in self.statistics(self.moments(x)))
        scale = 1.0 if self.scale is None else self.scale[...]
        bias = 0.0 if self.bias is None else self.bias[...]
        return normalize(x, mean, var, scale, bias, EPSILON, self.dtype)

    def moments(self, x: jax.Array) -> Moments:
        """Returns per-sample moments of x about zero."""
        return sample_moments(x)

    def statistics(self, moments: Moments) -> tuple[jax.Array, jax.Array]:
        """Returns the mean and variance of each channel's group, [N, C]."""
        mean, square = self._group_mean(moments.mean), self._group_mean(moments.square)
        return mean, variance(mean, square)

    def _group_mean(self, values: jax.Array) -> jax.Array:
        """Replaces each channel's value by its group's mean; values [N, C]."""
        n, channels = values.shape
        groups = values.reshape(n, self.num_groups, -1)
        means = jnp.mean(groups, axis=-1)
        return jnp.repeat(means, channels // self.num_groups, axis=-1)
