"""Random resized crop and flip for training, as torchvision samples them, without hidden state."""

import math

from an_jax.data import image_ops
from an_jax.data.tf_on_cpu import tf

_RATIOS = (3 / 4, 4 / 3)
_TRIES = 10


def random_window(size: tf.Tensor, scale: tuple[float, float], seed: tf.Tensor) -> tf.Tensor:
    """The window of a RandomResizedCrop (Szegedy et al., 2015), sampled as torchvision does.

    Area uniform in `scale`, aspect ratio log-uniform in [3/4, 4/3]; the first of ten tries that
    fits, else the largest middle part of a ratio within these bounds.

    Args:
        size: int32 [height, width] of the image.
        scale: bounds of the window's share of the area.
        seed: int64 [2].

    Returns:
        int32 [top, left, height, width].
    """
    height, width = tf.unstack(tf.cast(size, tf.float32))
    u = tf.random.stateless_uniform([4, _TRIES], seed)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * u[0])
    low, high = (math.log(r) for r in _RATIOS)
    ratio = tf.exp(low + (high - low) * u[1])
    columns, rows = tf.round(tf.sqrt(area * ratio)), tf.round(tf.sqrt(area / ratio))
    fits = (columns > 0) & (columns <= width) & (rows > 0) & (rows <= height)
    first = tf.argmax(tf.cast(fits, tf.int32))

    own = width / height
    all_rows = tf.where(own < _RATIOS[0], tf.round(width / _RATIOS[0]), height)
    all_columns = tf.where(own > _RATIOS[1], tf.round(height * _RATIOS[1]), width)
    any_fits = tf.reduce_any(fits)
    rows = tf.where(any_fits, rows[first], all_rows)
    columns = tf.where(any_fits, columns[first], all_columns)
    top = tf.where(any_fits, tf.floor(u[2, first] * (height - rows + 1)), (height - rows) // 2)
    left = tf.where(any_fits, tf.floor(u[3, first] * (width - columns + 1)), (width - columns) // 2)
    return tf.cast(tf.stack([top, left, rows, columns]), tf.int32)


def augment(encoded, size: int, interpolation: str, scale, flip: bool, *, seed) -> tf.Tensor:
    """A random resized crop of an encoded image, perhaps mirrored.

    Args:
        encoded: JPEG or PNG bytes.
        size: side of the result, pixels.
        interpolation: "bilinear" or "bicubic", exactly as Pillow resizes the crop.
        scale: see random_window.
        flip: whether to mirror half of the images.
        seed: int64 [2]; the result is a function of it.

    Returns:
        uint8 [size, size, 3].
    """
    window = random_window(image_ops.image_size(encoded), scale, seed)
    image = image_ops.decode_window(encoded, window)
    image = image_ops.resize(image, (size, size), (0, 0), size, interpolation)
    if flip:
        mirrored = tf.random.stateless_uniform([], tf.bitwise.invert(seed)) < 0.5
        image = tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)
    return image
