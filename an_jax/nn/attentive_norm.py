"""Attentive Normalization (Li, Sun, Wu: "Attentive Normalization", ECCV 2020, section 3)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from an_jax.nn.batch_norm import EPSILON, BatchNorm, GroupNorm
from an_jax.nn.layers import Sequential, at_least_float32, normal
from an_jax.nn.moments import Moments, normalize, variance

ATTENTION_EPSILON = 1e-3


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """clip(x + 3, 0, 6) / 6 (Howard et al., 2019)."""
    return jnp.clip(x + 3, 0, 6) / 6


class AttentiveNorm(nnx.Module):
    """Normalization whose affine transformation is a mixture, weighted by attention to the sample.

    For x [N, H, W, C], K mixture components, weight and bias [K, C]:

        x_hat  = normalization of x without affine transformation (batch or group statistics)
        r      = mean / sqrt(variance + 1e-3) of x over (H, W), variance unbiased       [N, C]
        lambda = hard_sigmoid(norm(r @ A)), A [C, K]                                    [N, K]
        output = (lambda @ weight) * x_hat + lambda @ bias

    The statistics of x_hat follow from the same per-sample moments as r, so attention costs no
    further pass over x. A map of one pixel has no unbiased variance; it counts as 0 here
    (PyTorch gives NaN).

    Args:
        num_features: number of channels C.
        num_mixtures: number K of affine transformations.
        num_groups: groups of a GroupNorm backbone; None for a BatchNorm backbone.
        num_attention_groups: groups of a GroupNorm over the K attention values;
            None for a BatchNorm over them.
        zero_init: start with weight and bias 0, so that a residual block starts as the identity.
        dtype: compute dtype of the output; attention is computed in at least float32.
    """

    def __init__(
        self,
        num_features,
        num_mixtures,
        *,
        num_groups=None,
        num_attention_groups=None,
        zero_init=False,
        dtype,
        rngs,
    ):
        kept = at_least_float32(dtype)
        shape = (num_mixtures, num_features)

        def draw(mean):
            if zero_init:
                return jnp.zeros(shape, kept)
            return mean + 0.1 * normal(rngs.params(), shape, kept)

        self.weight = nnx.Param(draw(1.0))
        self.bias = nnx.Param(draw(0.0))
        if num_groups is None:
            self.backbone = BatchNorm(num_features, affine=False, dtype=dtype)
        else:
            self.backbone = GroupNorm(num_features, num_groups, affine=False, dtype=dtype)
        std = np.sqrt(2.0 / num_mixtures)
        projection = nnx.Linear(
            num_features,
            num_mixtures,
            use_bias=False,
            kernel_init=lambda *args: std * normal(*args),
            dtype=kept,
            param_dtype=kept,
            precision=jax.lax.Precision.HIGHEST,
            rngs=rngs,
        )
        if num_attention_groups is None:
            attention_norm = BatchNorm(num_mixtures, dtype=kept)
        else:
            attention_norm = GroupNorm(num_mixtures, num_attention_groups, dtype=kept)
        self.attention = Sequential([projection, attention_norm, hard_sigmoid])
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, C] -> the same shape. Raises ValueError on a batch of one in training."""
        moments = self.backbone.moments(x)
        attention = self.attention(descriptor(moments))
        precision = jax.lax.Precision.HIGHEST
        scale = jnp.matmul(attention, self.weight[...], precision=precision)[:, None, None, :]
        bias = jnp.matmul(attention, self.bias[...], precision=precision)[:, None, None, :]
        mean, var = self.backbone.statistics(moments)
        if mean.ndim == 2:  # a GroupNorm backbone has statistics of its own for each sample
            mean, var = mean[:, None, None, :], var[:, None, None, :]
        return normalize(x, mean, var, scale, bias, EPSILON, self.dtype)


def descriptor(moments: Moments) -> jax.Array:
    """Mean over standard deviation of each channel of each sample, [N, C] (section 3.2)."""
    n = moments.num_pixels
    unbiased = n / (n - 1) if n > 1 else 0.0
    var = variance(moments.mean, moments.square) * unbiased
    return (moments.mean + moments.shift) * jax.lax.rsqrt(var + ATTENTION_EPSILON)


def norm_layer(num_features, num_mixtures=None, *, zero_init=False, dtype, rngs):
    """AttentiveNorm with `num_mixtures` components, or BatchNorm where that is None."""
    if num_mixtures is None:
        return BatchNorm(num_features, zero_init=zero_init, dtype=dtype)
    return AttentiveNorm(num_features, num_mixtures, zero_init=zero_init, dtype=dtype, rngs=rngs)
