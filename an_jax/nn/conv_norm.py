"""Convolution, batch normalization and activation."""

from typing import Unpack

import jax
from flax import nnx

from an_jax.nn.batch_norm import BatchNorm
from an_jax.nn.layers import Conv, Layer, Options, identity


class ConvNorm(nnx.Module):
    """A convolution, batch normalization and an activation.

    Args:
        in_features, out_features, kernel_size, stride, padding: of the convolution.
        activation: function of the normalized output.
        **options: dtype and rngs.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        activation: Layer = identity,
        **options: Unpack[Options],
    ):
        self.conv = Conv(
            in_features, out_features, kernel_size, stride=stride, padding=padding, **options
        )
        self.norm = BatchNorm(out_features, **options)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [N, H, W, in_features] to [N, H', W', out_features]."""
        return self.activation(self.norm(self.conv(x)))
