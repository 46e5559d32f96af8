"""Initial values, made on the host: compiling a program for each shape would take minutes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

# (key, shape, dtype) -> array, as in flax.
Initializer = Callable[[jax.Array, tuple[int, ...], DTypeLike], jax.Array]


def normal(std: float, mean: float = 0.0) -> Initializer:
    """Returns an initializer that draws from N(mean, std^2)."""
    return _drawing(lambda rng, shape: rng.normal(mean, std, shape))


def uniform(limit: float) -> Initializer:
    """Returns an initializer that draws from U(-limit, limit)."""
    return _drawing(lambda rng, shape: rng.uniform(-limit, limit, shape))


def full(num_features: int, value: float, dtype: DTypeLike) -> jax.Array:
    """Returns an array [num_features] of one value."""
    return jax.device_put(np.full(num_features, value, dtype))


def _drawing(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> Initializer:
    def initialize(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, **_: Any) -> jax.Array:
        def call(seed: jax.Array) -> np.ndarray:
            # Philox is counter-based: keys that differ in a bit give independent numbers.
            rng = np.random.Generator(np.random.Philox(np.asarray(seed)))
            return draw(rng, shape).astype(dtype)

        seed = jax.random.key_data(key)
        if isinstance(seed, jax.core.Tracer):
            return jax.pure_callback(call, jax.ShapeDtypeStruct(shape, dtype), seed)
        return jax.device_put(call(seed))

    return initialize
