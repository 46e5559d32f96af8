"""Random resized crop and flip for training, as torchvision samples them, without hidden state."""

import math

from an_jax.data.images import cropping
from an_jax.data.tf_on_cpu import tf

_RATIOS = (3 / 4, 4 / 3)
_TRIES = 10


def draw(seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """All random numbers of an image: float32 [4, tries] for its window, [] for flipping it.

    Args:
        seed: int64 [2]; the result is a function of it.
    """
    return {
        "window": tf.random.stateless_uniform([4, _TRIES], seed),
        "flip": tf.random.stateless_uniform([], tf.bitwise.invert(seed)),
    }


def random_window(size: tf.Tensor, scale: tuple[float, float], u: tf.Tensor) -> tf.Tensor:
    """The window of a RandomResizedCrop (Szegedy et al., 2015), sampled as torchvision does.

    Area uniform in `scale`, aspect ratio log-uniform in [3/4, 4/3]; the first of ten tries that
    fits, else the largest middle part of a ratio within these bounds.

    Args:
        size: int32 [..., 2], height and width of the images.
        scale: bounds of the window's share of the area.
        u: uniform in [0, 1), float32 [..., 4, tries].

    Returns:
        int32 [..., 4], top, left, height and width.
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

    own = width / height
    rows = tf.where(own < _RATIOS[0], tf.round(width / _RATIOS[0]), height)
    columns = tf.where(own > _RATIOS[1], tf.round(height * _RATIOS[1]), width)
    middle = tf.concat([(height - rows) // 2, (width - columns) // 2, rows, columns], -1)
    return tf.cast(tf.where(tf.reduce_any(fits, -1, keepdims=True), chosen, middle), tf.int32)


def plan_augmented(
    size: tf.Tensor, side: int, interpolation: str, scale: tuple[float, float], flip: bool, draws
) -> cropping.Plan:
    """Random resized crops, half of them mirrored.

    Args:
        size: height and width of the images, int32 [..., 2].
        side: of the results, pixels.
        interpolation: "bilinear" or "bicubic".
        scale: see random_window.
        flip: whether to mirror half of the images.
        draws: what `draw` gives for each image.
    """
    window = random_window(size, scale, draws["window"])
    mirrored = draws["flip"] < (0.5 if flip else 0.0)
    return cropping.plan_resized_window(size, window, side, mirrored, interpolation)
