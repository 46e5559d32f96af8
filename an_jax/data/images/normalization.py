"""Normalization of images, on the device."""

import jax
import jax.numpy as jnp

from an_jax.zoo import Preprocessing


def normalize_images(images: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Returns float32 (x - 255 mean) / (255 std) per channel of uint8 images [N, H, W, 3]."""
    mean = 255 * jnp.array(preprocessing.mean, jnp.float32)
    std = 255 * jnp.array(preprocessing.std, jnp.float32)
    return (images.astype(jnp.float32) - mean) / std
