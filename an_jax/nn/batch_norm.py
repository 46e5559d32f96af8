"""Batch and group normalization with PyTorch's semantics, computed from per-sample moments."""

import jax
import jax.numpy as jnp
from flax import nnx

from an_jax.nn.layers import at_least_float32
from an_jax.nn.moments import Moments, normalize, sample_moments, variance

EPSILON = 1e-5
MOMENTUM = 0.1


class BatchNorm(nnx.Module):
    """Batch normalization (Ioffe & Szegedy, 2015) as PyTorch computes it.

    Normalizes with the biased variance of the batch, keeps the unbiased one: new running value
    = 0.9 old + 0.1 batch. Statistics live in at least float32 whatever the compute dtype.
    Under `jax.shard_map` the batch is the device's own share, as with PyTorch's data parallelism,
    or with `axis_name` set the shares of all devices along that mesh axis together.

    Args:
        num_features: number of channels C.
        affine: whether to scale and shift the result.
        zero_init: start with scale 0, so that a residual block starts as the identity.
        dtype: compute dtype of the output.
    """

    def __init__(self, num_features, *, affine=True, zero_init=False, dtype, rngs=None):
        kept = at_least_float32(dtype)
        scale_init = jnp.zeros if zero_init else jnp.ones
        self.scale = nnx.Param(scale_init(num_features, kept)) if affine else None
        self.bias = nnx.Param(jnp.zeros(num_features, kept)) if affine else None
        self.mean = nnx.BatchStat(jnp.zeros(num_features, kept))
        self.var = nnx.BatchStat(jnp.ones(num_features, kept))
        self.use_running_average = False
        self.axis_name = None
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, ..., C] -> the same shape. Raises ValueError on one value a channel in training."""
        moments = None if self.use_running_average else self.moments(x)
        mean, var = self.statistics(moments)
        scale, bias = (self.scale[...], self.bias[...]) if self.scale is not None else (1.0, 0.0)
        return normalize(x, mean, var, scale, bias, EPSILON, self.dtype)

    def moments(self, x: jax.Array) -> Moments:
        """Per-sample moments of x about the running mean, the best guess there is before x."""
        return sample_moments(x, self.mean[...])

    def statistics(self, moments: Moments | None) -> tuple[jax.Array, jax.Array]:
        """Mean and variance [C] to normalize with; in training those of the batch, which also
        update the running ones. `moments` is not needed in evaluation."""
        if self.use_running_average:
            return self.mean[...], self.var[...]
        count = moments.mean.shape[0] * moments.num_pixels
        offset, square = jnp.mean(moments.mean, axis=0), jnp.mean(moments.square, axis=0)
        if self.axis_name is not None:
            count *= jax.lax.axis_size(self.axis_name)
            offset, square = jax.lax.pmean((offset, square), self.axis_name)
        if count < 2:
            raise ValueError(
                "training needs more than one value per channel: give each device at least 2 images"
            )
        var = variance(offset, square)
        mean = offset + moments.shift
        # Not `self.mean[...] = `, which asks a tracer for its sharding: minutes in deep networks.
        self.mean.set_value((1 - MOMENTUM) * self.mean[...] + MOMENTUM * mean)
        unbiased = var * (count / (count - 1))
        self.var.set_value((1 - MOMENTUM) * self.var[...] + MOMENTUM * unbiased)
        return mean, var


class GroupNorm(nnx.Module):
    """Group normalization (Wu & He, 2018): statistics of one sample over groups of channels.

    Args:
        num_features: number of channels C, a multiple of num_groups.
        affine: whether to scale and shift the result.
        dtype: compute dtype of the output.

    Raises:
        ValueError: the channels cannot be divided into the groups.
    """

    def __init__(self, num_features, num_groups, *, affine=True, dtype, rngs=None):
        if num_features % num_groups:
            raise ValueError(f"{num_features} channels do not divide into {num_groups} groups")
        kept = at_least_float32(dtype)
        self.scale = nnx.Param(jnp.ones(num_features, kept)) if affine else None
        self.bias = nnx.Param(jnp.zeros(num_features, kept)) if affine else None
        self.num_groups, self.dtype = num_groups, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, ..., C] -> the same shape."""
        pixel_axes = tuple(range(1, x.ndim - 1))
        mean, var = (jnp.expand_dims(s, pixel_axes) for s in self.statistics(self.moments(x)))
        scale, bias = (self.scale[...], self.bias[...]) if self.scale is not None else (1.0, 0.0)
        return normalize(x, mean, var, scale, bias, EPSILON, self.dtype)

    def moments(self, x: jax.Array) -> Moments:
        """Per-sample moments of x about zero."""
        return sample_moments(x)

    def statistics(self, moments: Moments) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of each channel's group, [N, C]."""
        shape = moments.mean.shape
        grouped = (len(moments.mean), self.num_groups, -1)
        mean, square = (
            jnp.broadcast_to(
                jnp.mean(m.reshape(grouped), axis=-1, keepdims=True),
                (shape[0], self.num_groups, shape[1] // self.num_groups),
            ).reshape(shape)
            for m in (moments.mean, moments.square)
        )
        return mean, variance(mean, square)
