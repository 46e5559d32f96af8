"""Decoding of image files to the pixels that Pillow gives, in TensorFlow ops where they agree."""

import io

import numpy as np
from PIL import Image

from an_jax.data.tf_on_cpu import tf

# The first bytes of a PNG file as 16-bit numbers. Width and height follow, two numbers each, then
# the number of bits and the color type in one.
_PNG_START = np.frombuffer(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ">u2").astype(np.int32)
_16_BIT_GRAY = 0x1000


# A function, so that errors of Pillow become OpErrors.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes the bytes of an image file to uint8 [H, W, 3], as Pillow's convert("RGB").

    Reads every format of Pillow; of several frames the first. EXIF orientation is ignored in JPEG
    and PNG files.

    Raises:
        tf.errors.OpError: the image is corrupt or no image.
    """
    image = tf.cond(
        _agrees_with_pillow(encoded),
        # Pillow's DCT method; with TensorFlow's default, two thirds of the pixels would differ.
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.numpy_function(_decode_by_pillow, [encoded], tf.uint8, stateful=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _agrees_with_pillow(encoded: tf.Tensor) -> tf.Tensor:
    """Whether TensorFlow decodes a file to Pillow's pixels: JPEG but CMYK, PNG but 16-bit gray."""

    def is_usual_png() -> tf.Tensor:
        numbers = _read_png_header(encoded)
        return tf.reduce_all(numbers[:8] == _PNG_START) & (numbers[12] != _16_BIT_GRAY)

    return tf.cond(
        tf.io.is_jpeg(encoded), lambda: tf.io.extract_jpeg_shape(encoded)[2] < 4, is_usual_png
    )


def _decode_by_pillow(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def decode_part(encoded: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """Decodes the part [top, left, height, width] of an image; of most JPEGs, only that part.

    JPEG decoders interpolate chroma between pixels, so the pixels at the part's border are not
    exact; see `add_margin`.
    """
    return tf.cond(
        tf.io.is_jpeg(encoded) & _agrees_with_pillow(encoded),
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
    """Reads int32 [height, width] of an image; of JPEG and PNG files, only the header."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: _png_size(encoded),
    )


def _png_size(encoded: tf.Tensor) -> tf.Tensor:
    """Size of an image that is not a JPEG; decodes it if it has no valid PNG header."""
    numbers = _read_png_header(encoded)
    width, height = numbers[8:10], numbers[10:12]  # upper and lower half of each
    size = tf.stack([height[1], width[1]])
    # A larger size may come from a damaged header: decode the image before planning a crop.
    is_small = tf.reduce_all(size > 0) & (width[0] + height[0] == 0)
    return tf.cond(
        tf.reduce_all(numbers[:8] == _PNG_START) & is_small,
        lambda: size,
        lambda: tf.shape(decode_rgb(encoded))[:2],
    )


def _read_png_header(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the first 26 bytes, with zeros if there are fewer, as 16-bit numbers; int32 [13]."""
    numbers = tf.io.decode_raw(encoded, tf.uint16, little_endian=False, fixed_length=26)
    return tf.cast(numbers, tf.int32)
