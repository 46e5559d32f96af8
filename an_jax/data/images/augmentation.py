"""Random resized crop and flip for training, sampled as torchvision does, without hidden state."""

import math

from an_jax.data.images import cropping
from an_jax.data.tf_on_cpu import tf

_RATIOS = (3 / 4, 4 / 3)
_TRIES = 10


def draw(seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Draws an image's random numbers: float32 [4, tries] for its window, [] for its flip.

    Args:
        seed: int64 [2]; it alone determines the result.
    """
    return {
        "window": tf.random.stateless_uniform([4, _TRIES], seed),
        "flip": tf.random.stateless_uniform([], tf.bitwise.invert(seed)),
    }


def random_window(size: tf.Tensor, scale: tuple[float, float], u: tf.Tensor) -> tf.Tensor:
    """Returns the window of a RandomResizedCrop (Szegedy et al., 2015), as torchvision does.

    The area is uniform in `scale`, the aspect ratio log-uniform in [3/4, 4/3]. Uses the first of
    ten tries that fits, otherwise the largest central crop with an allowed ratio.

    Args:
        size: int32 [..., 2], height and width of the images.
        scale: bounds of the window's share of the area.
        u: uniform in [0, 1), float32 [..., 4, tries].

    Returns:
        Top, left, height and width, int32 [..., 4].
    """
    height, width = tf.unstack(tf.cast(size, tf.float32)[..., None], axis=-2)
    u_area, u_ratio, u_top, u_left = tf.unstack(u, axis=-2)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * u_area)
    low, high = (math.log(r) for r in _RATIOS)
    ratio = tf.exp(low + (high - low) * u_ratio)
    columns, rows = tf.round(tf.sqrt(area * ratio)), tf.round(tf.sqrt(area / ratio))
    fits = (columns > 0) & (columns <= width) & (rows > 0) & (rows <= height)
    top, left = tf.floor(u_top * (height - rows + 1)), tf.floor(u_left * (width - columns + 1))
    tries = tf.stack([top, left, rows, columns], -1)
    first = tf.argmax(tf.cast(fits, tf.int32), -1)
    chosen = tf.gather(tries, first, axis=-2, batch_dims=first.shape.rank)

    ratio = width / height
    rows = tf.where(ratio < _RATIOS[0], tf.round(width / _RATIOS[0]), height)
    columns = tf.where(ratio > _RATIOS[1], tf.round(height * _RATIOS[1]), width)
    center = tf.concat([(height - rows) // 2, (width - columns) // 2, rows, columns], -1)
    return tf.cast(tf.where(tf.reduce_any(fits, -1, keepdims=True), chosen, center), tf.int32)


def plan_augmented(
    size: tf.Tensor,
    side: int,
    interpolation: str,
    scale: tuple[float, float],
    horizontal_flip: bool,
    draws: dict[str, tf.Tensor],
) -> cropping.Plan:
    """Plans random resized crops, half of them mirrored.

    Args:
        size: height and width of the images, int32 [..., 2].
        side: size of the results in pixels.
        interpolation: "bilinear" or "bicubic".
        scale: bounds of the window's share of the area.
        horizontal_flip: whether to mirror half of the images.
        draws: the result of `draw` for each image.
    """
    window = random_window(size, scale, draws["window"])
    is_mirrored = draws["flip"] < (0.5 if horizontal_flip else 0.0)
    return cropping.plan_resized_window(size, window, side, is_mirrored, interpolation)
