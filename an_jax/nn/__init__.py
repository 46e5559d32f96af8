"""Layers: convolution and pooling, batch and group normalization, Attentive Normalization, SE."""

from an_jax.nn.attentive_norm import AttentiveNorm, norm_layer
from an_jax.nn.batch_norm import BatchNorm, GroupNorm
from an_jax.nn.conv_norm import ConvNorm
from an_jax.nn.layers import (
    Classifier,
    Conv,
    Dropout,
    FeatureMap,
    Layer,
    Options,
    Sequential,
    identity,
)
from an_jax.nn.pooling import avg_pool, avg_pool_ceil, global_avg_pool, max_pool
from an_jax.nn.squeeze_excite import SqueezeExcite

__all__ = [
    "AttentiveNorm",
    "BatchNorm",
    "Classifier",
    "Conv",
    "ConvNorm",
    "Dropout",
    "FeatureMap",
    "GroupNorm",
    "Layer",
    "Options",
    "Sequential",
    "SqueezeExcite",
    "avg_pool",
    "avg_pool_ceil",
    "global_avg_pool",
    "identity",
    "max_pool",
    "norm_layer",
]
