"""Layers: convolution and pooling, batch and group normalization, Attentive Normalization, SE."""

from an_jax.nn.attentive_norm import AttentiveNorm, norm_layer
from an_jax.nn.batch_norm import BatchNorm, GroupNorm
from an_jax.nn.layers import Conv, Head, Sequential, avg_pool_ceil, max_pool
from an_jax.nn.squeeze_excite import SqueezeExcite

__all__ = [
    "AttentiveNorm",
    "BatchNorm",
    "Conv",
    "GroupNorm",
    "Head",
    "Sequential",
    "SqueezeExcite",
    "avg_pool_ceil",
    "max_pool",
    "norm_layer",
]
