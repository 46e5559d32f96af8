"""Label smoothing and mixup, computed on the device."""

import jax
import jax.numpy as jnp
from jax import lax

FAILED = -1  # label of the images of a process that has failed; makes the loss NaN


def smooth_targets(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Returns the target probabilities of label smoothing (Szegedy et al., 2016).

    Args:
        labels: int [N]; the targets of FAILED are NaN.
        num_classes: number of classes C.
        smoothing: share of the target, in [0, 1), that is spread evenly over all classes.

    Returns:
        float32 [N, C].
    """
    # optax.smooth_labels rounds twice.
    off = smoothing / num_classes
    is_label = jax.nn.one_hot(labels, num_classes, dtype=bool)
    targets = jnp.where(is_label, jnp.float32(1 - smoothing + off), jnp.float32(off))
    return jnp.where((labels == FAILED)[:, None], jnp.nan, targets)


def mixup(
    images: jax.Array, targets: jax.Array, lam: jax.Array, *, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """Mixes image i with image N - 1 - i, and their targets alike (Zhang et al., 2018).

    Rounds to whole pixel values, half to even, as the papers' training does.

    Args:
        images: uint8 [N, H, W, 3].
        targets: float32 [N, C].
        lam: float32, the share of the first image.
        axis_name: the mesh axis, under `jax.shard_map`, along whose devices the N images lie.

    Returns:
        Images and targets of the same shapes and dtypes.
    """
    last_images, last_targets = images[::-1], targets[::-1]
    if axis_name is not None and (size := lax.axis_size(axis_name)) > 1:
        opposite = [(i, size - 1 - i) for i in range(size)]
        last_images, last_targets = lax.ppermute((last_images, last_targets), axis_name, opposite)
    # The minimum changes no value. It keeps the compiler from fusing multiplication and addition,
    # which would round differently.
    first = jnp.minimum(lam * images.astype(jnp.float32), 255.0)
    second = jnp.minimum((1 - lam) * last_images.astype(jnp.float32), 255.0)
    mixed = jnp.round(first + second).astype(jnp.uint8)
    return mixed, lam * targets + (1 - lam) * last_targets
