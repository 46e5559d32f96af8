"""Attentive Normalization (Li, Sun, Wu: "Attentive Normalization", ECCV 2020, section 3)."""

from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from an_jax.nn.batch_norm import EPSILON, BatchNorm, GroupNorm
from an_jax.nn.initialization import normal
from an_jax.nn.layers import Options, Sequential, at_least_float32
from an_jax.nn.moments import Moments, normalize, variance

ATTENTION_EPSILON = 1e-3


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """clip(x + 3, 0, 6) / 6 (Howard et al., 2019)."""
    return jnp.clip(x + 3, 0, 6) / 6


class AttentiveNorm(nnx.Module):
    """Normalization with a mixture of affine transformations, weighted by attention per sample.

    For x [N, H, W, C], K mixture components, weight and bias [K, C]:

        x_hat  = normalization of x without affine transformation (batch or group statistics)
        r      = mean / sqrt(variance + 1e-3) of x over (H, W), variance unbiased       [N, C]
        lambda = hard_sigmoid(norm(r @ A)), A [C, K]                                    [N, K]
        output = (lambda @ weight) * x_hat + lambda @ bias

    x_hat and r are computed from the same per-sample moments, so attention needs no further pass
    over x. The unbiased variance of a map of one pixel is undefined: here it is 0 (in PyTorch NaN).

    Args:
        num_features: number of channels C.
        num_mixtures: number K of affine transformations.
        num_groups: groups of a GroupNorm backbone; None for a BatchNorm backbone.
        num_attention_groups: groups of a GroupNorm over the K attention values;
            None for a BatchNorm over them.
        zero_init: start with weight and bias 0, so that a residual block starts as the identity.
        dtype: compute dtype of the output; attention is computed in at least float32.
        rngs: source of the initialization.
    """

    def __init__(
        self,
        num_features: int,
        num_mixtures: int,
        *,
        num_groups: int | None = None,
        num_attention_groups: int | None = None,
        zero_init: bool = False,
        **options: Unpack[Options],
    ):
        dtype, rngs = options["dtype"], options["rngs"]
        param_dtype = at_least_float32(dtype)
        shape = (num_mixtures, num_features)
        if zero_init:
            self.weight, self.bias = (nnx.Param(jnp.zeros(shape, param_dtype)) for _ in range(2))
        else:
            self.weight = nnx.Param(normal(0.1, mean=1.0)(rngs.params(), shape, param_dtype))
            self.bias = nnx.Param(normal(0.1)(rngs.params(), shape, param_dtype))
        self.backbone: BatchNorm | GroupNorm
        if num_groups is None:
            self.backbone = BatchNorm(num_features, affine=False, dtype=dtype)
        else:
            self.backbone = GroupNorm(num_features, num_groups, affine=False, dtype=dtype)
        projection = nnx.Linear(
            num_features,
            num_mixtures,
            use_bias=False,
            kernel_init=normal(np.sqrt(2.0 / num_mixtures)),  # Kaiming-normal
            dtype=param_dtype,
            param_dtype=param_dtype,
            precision=jax.lax.Precision.HIGHEST,
            rngs=rngs,
        )
        attention_norm: BatchNorm | GroupNorm
        if num_attention_groups is None:
            attention_norm = BatchNorm(num_mixtures, dtype=param_dtype)
        else:
            attention_norm = GroupNorm(num_mixtures, num_attention_groups, dtype=param_dtype)
        self.attention = Sequential([projection, attention_norm, hard_sigmoid])
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes x [N, H, W, C]. Raises ValueError on a batch of one in training."""
        moments = self.backbone.moments(x)
        attention = self.attention(descriptor(moments))
        precision = jax.lax.Precision.HIGHEST
        scale = jnp.matmul(attention, self.weight[...], precision=precision)[:, None, None, :]
        bias = jnp.matmul(attention, self.bias[...], precision=precision)[:, None, None, :]
        mean, var = self.backbone.statistics(moments)
        if mean.ndim == 2:  # a GroupNorm backbone has statistics for each sample
            mean, var = mean[:, None, None, :], var[:, None, None, :]
        return normalize(x, mean, var, scale, bias, EPSILON, self.dtype)


def descriptor(moments: Moments) -> jax.Array:
    """Returns each sample's mean over standard deviation by channel, [N, C] (section 3.2)."""
    n = moments.num_pixels
    unbiased = n / (n - 1) if n > 1 else 0.0
    var = variance(moments.mean, moments.square) * unbiased
    return (moments.mean + moments.shift) * jax.lax.rsqrt(var + ATTENTION_EPSILON)


def norm_layer(
    num_features: int,
    num_mixtures: int | None = None,
    *,
    zero_init: bool = False,
    **options: Unpack[Options],
) -> BatchNorm | AttentiveNorm:
    """Returns AttentiveNorm with `num_mixtures` components, or BatchNorm if that is None."""
    if num_mixtures is None:
        return BatchNorm(num_features, zero_init=zero_init, dtype=options["dtype"])
    return AttentiveNorm(num_features, num_mixtures, zero_init=zero_init, **options)
