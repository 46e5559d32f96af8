"""Label smoothing and mixup: images and target probabilities, computed on the device."""

import jax
import jax.numpy as jnp


def smooth_targets(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Target probabilities of label smoothing (Szegedy et al., 2016).

    Args:
        labels: int [N].
        num_classes: number of classes C.
        smoothing: the part, in [0, 1), that is spread evenly over all classes.

    Returns:
        float32 [N, C].
    """
    off = smoothing / num_classes
    is_label = jax.nn.one_hot(labels, num_classes, dtype=bool)
    return jnp.where(is_label, jnp.float32(1 - smoothing + off), jnp.float32(off))


def mixup(images: jax.Array, targets: jax.Array, lam: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mixes each image and its targets with those at the mirrored place of the batch.

    Zhang et al., "mixup", 2018. As the papers' training does it, the mixture is rounded to whole
    pixel values, half to even.

    Args:
        images: uint8 [N, H, W, 3].
        targets: float32 [N, C].
        lam: float32, the share of the first image.

    Returns:
        Images and targets, of the same shapes and dtypes.
    """
    # The minimum changes nothing but keeps compilers from a fused multiply-add, which rounds
    # otherwise.
    first, second = (
        jnp.minimum(share * part.astype(jnp.float32), 255.0)
        for share, part in ((lam, images), (1 - lam, images[::-1]))
    )
    mixed = jnp.round(first + second).astype(jnp.uint8)
    return mixed, lam * targets + (1 - lam) * targets[::-1]


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over the batch of -sum_c t_c log softmax(logits)_c, a scalar; both are [N, C]."""
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1))
