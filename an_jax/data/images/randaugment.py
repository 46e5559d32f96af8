"""RandAugment (Cubuk et al., 2020) with Pillow's pixels, in TensorFlow ops.

An operation maps an image, uint8 [H, W, 3], and a strength in [-1, 1], float64, to an image of the
same shape. The greatest strength is the end of the operation's range in AutoAugment (Cubuk et al.,
2019).
"""

import functools
import math
from collections.abc import Callable

import numpy as np

from an_jax.data.tf_on_cpu import tf

GRAY = 128  # fills what comes from outside of the image
_CHANNELS = np.arange(3) * 256  # the first rows of the channels in a table of all values


def randaugment(image: tf.Tensor, number: int, magnitude: float, seed: tf.Tensor) -> tf.Tensor:
    """Applies operations drawn from OPERATIONS, each with a random sign of the magnitude.

    Args:
        image: uint8 [H, W, 3], of a static shape.
        number: number of operations.
        magnitude: strength of all operations, 0 to 10.
        seed: int64 [2]; it alone determines the operations and signs.
    """
    strongest = tf.constant(magnitude / 10, tf.float64)
    for u in tf.unstack(tf.random.stateless_uniform([number, 2], seed, dtype=tf.float64)):
        index = tf.cast(u[0] * len(OPERATIONS), tf.int32)
        image = _apply(index, image, tf.where(u[1] < 0.5, strongest, -strongest))
    return image


@tf.function(autograph=False)  # traced once for all operations of an image, and for all epochs
def _apply(index: tf.Tensor, image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Applies an operation."""
    branches = [functools.partial(apply, image, strength) for apply in OPERATIONS.values()]
    return tf.switch_case(index, branches)


def _blend(degenerate: tf.Tensor, image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Pillow's ImageEnhance: a factor of 1 gives the image, one of 0 the degenerate image."""
    factor = tf.cast(1 + 0.9 * strength, tf.float32)
    image, degenerate = tf.cast(image, tf.float32), tf.cast(degenerate, tf.float32)
    blended = degenerate + factor * (image - degenerate)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.uint8)


def _grayscale(image: tf.Tensor) -> tf.Tensor:
    """Pillow's convert("L"), int32 [H, W, 1]."""
    weighted = tf.cast(image, tf.int32) * [19595, 38470, 7471]
    return (tf.reduce_sum(weighted, -1, keepdims=True) + 2**15) // 2**16


def _contrast(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    mean = tf.reduce_mean(tf.cast(_grayscale(image), tf.float64))
    return _blend(tf.floor(mean + 0.5), image, strength)


def _sharpness(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Blends with Pillow's filter SMOOTH, which keeps the pixels at the border."""
    kernel = np.ones((3, 3, 3, 1), np.float32)
    kernel[1, 1] = 5
    pixels = tf.cast(image, tf.float32)[None]
    sums = tf.nn.depthwise_conv2d(pixels, kernel, [1, 1, 1, 1], "VALID")[0]
    border = [[1, 1], [1, 1], [0, 0]]
    smooth = tf.pad(tf.cast(sums / 13 + 0.5, tf.uint8), border)
    is_inside = tf.pad(tf.ones_like(sums, tf.bool), border)
    return _blend(tf.where(is_inside, smooth, image), image, strength)


def _posterize(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    num_removed_bits = tf.cast(tf.round(4 * tf.abs(strength)), tf.uint8)
    return tf.bitwise.bitwise_and(image, tf.bitwise.left_shift(np.uint8(255), num_removed_bits))


def _solarize(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    threshold = 256 * (1 - tf.abs(strength))
    return tf.where(tf.cast(image, tf.float64) < threshold, image, 255 - image)


def _autocontrast(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    low, high = (tf.cast(r(image, [0, 1]), tf.float64) for r in (tf.reduce_min, tf.reduce_max))
    scale = 255 / (high - low)
    stretched = tf.cast(image, tf.float64) * scale - low * scale
    return tf.where(high > low, tf.cast(tf.clip_by_value(stretched, 0, 255), tf.uint8), image)


def _equalize(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    rows = tf.cast(image, tf.int32) + _CHANNELS
    histogram = tf.reshape(tf.math.bincount(tf.reshape(rows, [-1]), minlength=768), [3, 256])
    num_brightest = tf.gather(histogram, tf.reduce_max(rows - _CHANNELS, [0, 1]), batch_dims=1)
    step = (tf.reduce_sum(histogram, 1) - num_brightest)[:, None] // 255
    darker = tf.cumsum(histogram, axis=1, exclusive=True)
    table = tf.minimum((step // 2 + darker) // tf.maximum(step, 1), 255)
    table = tf.where(step > 0, table, tf.range(256))
    return tf.cast(tf.gather(tf.reshape(table, [-1]), rows), tf.uint8)


def _transform(image: tf.Tensor, *matrix: tf.Tensor | float) -> tf.Tensor:
    """Pillow's transform(AFFINE), nearest, in fixed-point numbers with 16 fractional bits.

    With the matrix a, b, c, d, e, f the pixel (x, y) is the image's (ax + by + c, dx + ey + f).
    """
    height, width = image.shape[:2]
    x, y = tf.range(width), tf.range(height)[:, None]

    def position(a: tf.Tensor | float, b: tf.Tensor | float, c: tf.Tensor | float) -> tf.Tensor:
        exact = tf.stack([tf.cast(v, tf.float64) for v in (a, b, c + a / 2 + b / 2)])
        fixed = tf.cast(tf.floor(exact * 2**16 + 0.5), tf.int32)
        return tf.bitwise.right_shift(fixed[0] * x + fixed[1] * y + fixed[2], 16)

    column, row = position(*matrix[:3]), position(*matrix[3:])
    is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixels = tf.gather(tf.reshape(image, [-1, 3]), tf.where(is_inside, row * width + column, 0))
    return tf.where(is_inside[..., None], pixels, np.uint8(GRAY))


def _rotate(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Rotates by up to 30 degrees, counterclockwise for a positive strength."""
    angle = strength * math.radians(30)
    cos, sin, y, x = tf.cos(angle), tf.sin(angle), image.shape[0] / 2, image.shape[1] / 2
    return _transform(image, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def _translate(image: tf.Tensor, right: tf.Tensor | float, down: tf.Tensor | float) -> tf.Tensor:
    """Reads pixels that are up to 150 / 331 of a side away, a whole number of pixels."""
    height, width = image.shape[:2]
    x, y = (tf.round(s * n * 150 / 331) for s, n in ((right, width), (down, height)))
    return _transform(image, 1, 0, x, 0, 1, y)


OPERATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "identity": lambda image, strength: tf.identity(image),
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "rotate": _rotate,
    "solarize": _solarize,
    "color": lambda image, strength: _blend(_grayscale(image), image, strength),
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": lambda image, strength: _blend(tf.zeros_like(image), image, strength),
    "sharpness": _sharpness,
    "shear_x": lambda image, strength: _transform(image, 1, 0.3 * strength, 0, 0, 1, 0),
    "shear_y": lambda image, strength: _transform(image, 1, 0, 0, 0.3 * strength, 1, 0),
    "translate_x": lambda image, strength: _translate(image, strength, 0),
    "translate_y": lambda image, strength: _translate(image, 0, strength),
}
