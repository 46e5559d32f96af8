"""Squeeze-and-Excitation (Hu, Shen, Sun, CVPR 2018)."""

import jax
from flax import nnx

from an_jax.nn.layers import Sequential, at_least_float32
from an_jax.nn.pooling import global_avg_pool


class SqueezeExcite(nnx.Module):
    """Scales each channel by sigmoid(W2 relu(W1 mean(x))), computed in at least float32.

    Args:
        num_features: number of channels C.
        reduction: W1 has C // reduction rows.
    """

    def __init__(self, num_features, reduction, *, dtype, rngs):
        kept = at_least_float32(dtype)

        def linear(n_in, n_out):
            # PyTorch's default: U(-1/sqrt(n_in), 1/sqrt(n_in)) has variance 1 / (3 n_in).
            init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
            return nnx.Linear(
                n_in,
                n_out,
                use_bias=False,
                kernel_init=init,
                dtype=kept,
                param_dtype=kept,
                precision=jax.lax.Precision.HIGHEST,
                rngs=rngs,
            )

        hidden = num_features // reduction
        self.fc = Sequential(
            [linear(num_features, hidden), jax.nn.relu, linear(hidden, num_features)]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, H, W, C] -> the same shape."""
        scale = jax.nn.sigmoid(self.fc(global_avg_pool(x)))
        return x * scale[:, None, None, :].astype(x.dtype)
