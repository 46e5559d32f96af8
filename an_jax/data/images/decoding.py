"""Decoding of JPEG and PNG files to the pixels that Pillow gives, in TensorFlow ops."""

import numpy as np

from an_jax.data.tf_on_cpu import tf

# The first bytes of a PNG file as 16-bit numbers. Width and height follow, two numbers each.
_PNG_START = np.frombuffer(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ">u2").astype(np.int32)


def decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes JPEG or PNG bytes to uint8 [H, W, 3], as Pillow's convert("RGB").

    EXIF orientation is ignored.
    """
    # Pillow's DCT method; with TensorFlow's default, two thirds of the pixels would differ.
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(image, [None, None, 3])


def decode_part(encoded: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """Decodes the part [top, left, height, width] of an image; of a JPEG, only that part.

    JPEG decoders interpolate chroma between pixels, so the pixels at the part's border are not
    exact; see `add_margin`.
    """
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_and_crop_jpeg(
            encoded, part, channels=3, dct_method="INTEGER_ACCURATE"
        ),
        lambda: slice_part(decode_rgb(encoded), part),
    )


def slice_part(image: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """Returns the part [top, left, height, width] of an image [H, W, 3]."""
    begin = tf.pad(part[:2], [[0, 1]])
    size = tf.pad(part[2:], [[0, 1]], constant_values=3)
    return tf.slice(image, begin, size)


def add_margin(window: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns the part to decode so that the pixels of a window in it are exact.

    Args:
        window: top, left, height, width, int32 [..., 4].
        size: height and width of the image, int32 [..., 2].

    Returns:
        The window with a margin of two pixels inside the image, int32 [..., 4].
    """
    corner, end = window[..., :2], window[..., :2] + window[..., 2:]
    corner, end = tf.maximum(corner - 2, 0), tf.minimum(end + 2, size)
    return tf.concat([corner, end - corner], -1)


def image_size(encoded: tf.Tensor) -> tf.Tensor:
    """Reads int32 [height, width] from the header of JPEG or PNG bytes."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: _png_size(encoded),
    )


def _png_size(encoded: tf.Tensor) -> tf.Tensor:
    """Size of an image that is not a JPEG; decodes it if it has no valid PNG header."""
    numbers = tf.io.decode_raw(encoded, tf.uint16, little_endian=False, fixed_length=24)
    numbers = tf.cast(numbers, tf.int32)
    width, height = numbers[8:10], numbers[10:12]  # upper and lower half of each
    size = tf.stack([height[1], width[1]])
    # A larger size may come from a damaged header: decode the image before planning a crop.
    is_small = tf.reduce_all(size > 0) & (width[0] + height[0] == 0)
    return tf.cond(
        tf.reduce_all(numbers[:8] == _PNG_START) & is_small,
        lambda: size,
        lambda: tf.shape(decode_rgb(encoded))[:2],
    )
