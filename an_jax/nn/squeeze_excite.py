"""Squeeze-and-Excitation (Hu, Shen, Sun, CVPR 2018)."""

from typing import Unpack

import jax
from flax import nnx

from an_jax.nn.initialization import uniform
from an_jax.nn.layers import Options, Sequential, at_least_float32
from an_jax.nn.pooling import global_avg_pool


class SqueezeExcite(nnx.Module):
    """Scales each channel by sigmoid(W2 relu(W1 mean(x))), computed in at least float32.

    Args:
        num_features: number of channels C.
        reduction: W1 has C // reduction rows.
        **options: dtype and rngs.
    """

    def __init__(self, num_features: int, reduction: int, **options: Unpack[Options]):
        hidden = num_features // reduction
        self.fc = Sequential(
            [
                _linear(num_features, hidden, **options),
                jax.nn.relu,
                _linear(hidden, num_features, **options),
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Scales x [N, H, W, C]."""
        scale = jax.nn.sigmoid(self.fc(global_avg_pool(x)))
        return x * scale[:, None, None, :].astype(x.dtype)


def _linear(n_in: int, n_out: int, **options: Unpack[Options]) -> nnx.Linear:
    param_dtype = at_least_float32(options["dtype"])
    return nnx.Linear(
        n_in,
        n_out,
        use_bias=False,
        kernel_init=uniform(n_in**-0.5),  # PyTorch's default
        dtype=param_dtype,
        param_dtype=param_dtype,
        precision=jax.lax.Precision.HIGHEST,
        rngs=options["rngs"],
    )
