"""Random crop, flip and erasing for training, sampled as torchvision does, without hidden state."""

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


def random_window(
    size: tf.Tensor,
    scale: tuple[float, float],
    u: tf.Tensor,
    ratios: tuple[float, float] = _RATIOS,
) -> tf.Tensor:
    """Returns the window of a RandomResizedCrop (Szegedy et al., 2015), as torchvision does.

    The area is uniform in `scale`, the aspect ratio log-uniform in `ratios`. Uses the first of ten
    tries that fits, otherwise the largest central crop with an allowed ratio.

    Args:
        size: int32 [..., 2], height and width of the images.
        scale: bounds of the window's share of the area.
        u: uniform in [0, 1), float32 [..., 4, tries].
        ratios: bounds of the window's width over its height.

    Returns:
        Top, left, height and width, int32 [..., 4].
    """
    height, width = tf.unstack(tf.cast(size, tf.float32)[..., None], axis=-2)
    u_area, u_ratio, u_top, u_left = tf.unstack(u, axis=-2)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * u_area)
    low, high = (math.log(r) for r in ratios)
    ratio = tf.exp(low + (high - low) * u_ratio)
    columns, rows = tf.round(tf.sqrt(area * ratio)), tf.round(tf.sqrt(area / ratio))
    fits = (columns > 0) & (columns <= width) & (rows > 0) & (rows <= height)
    top, left = tf.floor(u_top * (height - rows + 1)), tf.floor(u_left * (width - columns + 1))
    tries = tf.stack([top, left, rows, columns], -1)
    first = tf.argmax(tf.cast(fits, tf.int32), -1)
    chosen = tf.gather(tries, first, axis=-2, batch_dims=first.shape.rank)

    ratio = width / height
    rows = tf.where(ratio < ratios[0], tf.round(width / ratios[0]), height)
    columns = tf.where(ratio > ratios[1], tf.round(height * ratios[1]), width)
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


def erase(image: tf.Tensor, probability: float, seed: tf.Tensor) -> tf.Tensor:
    """Fills a random window with random pixels: random erasing (Zhong et al., 2020).

    As in torchvision and timm, the window's share of the area is uniform in [0.02, 1/3], and its
    aspect ratio log-uniform in [0.3, 1/0.3].

    Args:
        image: uint8 [H, W, 3].
        probability: of a window; otherwise the image stays as it is.
        seed: int64 [2]; it alone determines the result.
    """
    u = tf.random.stateless_uniform([1 + 4 * _TRIES], seed)

    def fill() -> tf.Tensor:
        size, tries = tf.shape(image), tf.reshape(u[1:], [4, _TRIES])
        top, left, height, width = tf.unstack(
            random_window(size[:2], (0.02, 1 / 3), tries, ratios=(0.3, 1 / 0.3))
        )
        row, column = tf.range(size[0])[:, None, None] - top, tf.range(size[1])[:, None] - left
        is_erased = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        pixels = tf.random.stateless_uniform(size, tf.bitwise.invert(seed), 0, 256, tf.int32)
        return tf.where(is_erased, tf.cast(pixels, tf.uint8), image)

    return tf.cond(u[0] < probability, fill, lambda: image)
