"""The unit that most networks are made of."""

import jax
from flax import nnx

from an_jax.nn.batch_norm import BatchNorm
from an_jax.nn.layers import Conv, identity


class ConvNorm(nnx.Module):
    """A convolution, batch normalization and an activation.

    Args:
        in_features, out_features, kernel_size: of the convolution.
        activation: function of the normalized output.
        dtype, rngs: compute dtype, and source of the initialization.
        **kwargs: stride, padding and groups of the convolution.
    """

    def __init__(
        self, in_features, out_features, kernel_size, *, activation=identity, dtype, rngs, **kwargs
    ):
        self.conv = Conv(in_features, out_features, kernel_size, dtype=dtype, rngs=rngs, **kwargs)
        self.norm = BatchNorm(out_features, dtype=dtype)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, in_features] -> [N, H', W', out_features]."""
        return self.activation(self.norm(self.conv(x)))
