"""Decoding, resizing and cropping that give Pillow's pixels in TensorFlow ops.

Pillow resizes in two passes, horizontal first (until version 13, with which the published numbers
were made), and rounds to uint8 after each. What a pass does depends on an image's size only: it is
planned for a whole batch at once, as TensorFlow takes microseconds for every op, however small.
"""

from typing import NamedTuple

import numpy as np

from an_jax.data.images.filters import Filter, apply_filter, resizing_filter
from an_jax.data.tf_on_cpu import tf

# How a PNG begins, in pairs of bytes; width and height follow, two pairs each.
PNG_START = np.frombuffer(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ">u2").astype(np.int32)


class Plan(NamedTuple):
    """What to make of an image; plans of several images can be stacked.

    Attributes:
        part: the part of the image that is decoded: int32 [..., 4], top, left, height, width.
        rows, columns: filters of the vertical and the horizontal pass, whose inputs are in `part`.
    """

    part: tf.Tensor
    rows: Filter
    columns: Filter


def decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """JPEG or PNG bytes -> uint8 [H, W, 3], as Pillow's convert("RGB"); orientation is ignored."""
    # As Pillow does; with TensorFlow's default, two thirds of the pixels would differ.
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(image, [None, None, 3])


def decode_part(encoded: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """The part [top, left, height, width] of decode_rgb(encoded); of a JPEG no more is decoded.

    Chroma is interpolated across pixels: within a JPEG, the part's borders are not exact.
    """
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_and_crop_jpeg(
            encoded, part, channels=3, dct_method="INTEGER_ACCURATE"
        ),
        lambda: tf.slice(decode_rgb(encoded), *_corner_and_shape(part)),
    )


def with_margin(window: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The part to decode so that the window within it is exact.

    Args:
        window: int32 [..., 4], top, left, height, width.
        size: of the image, int32 [..., 2].

    Returns:
        A window, int32 [..., 4].
    """
    corner, end = window[..., :2], window[..., :2] + window[..., 2:]
    corner, end = tf.maximum(corner - 2, 0), tf.minimum(end + 2, size)
    return tf.concat([corner, end - corner], -1)


def image_size(encoded: tf.Tensor) -> tf.Tensor:
    """int32 [height, width] of JPEG or PNG bytes, which are not decoded for it."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: _size_of_other(encoded),
    )


def _size_of_other(encoded):
    """The size of what is no JPEG: of a PNG from its header, else by decoding."""
    pairs = tf.io.decode_raw(encoded, tf.uint16, little_endian=False, fixed_length=24)
    pairs = tf.cast(pairs, tf.int32)
    size = pairs[11:7:-2]  # the lower halves of height and width
    # A side beyond a JPEG's would be planned for before decoding shows that it is damage.
    is_small = tf.reduce_all(size > 0) & (pairs[8] + pairs[10] == 0)
    return tf.cond(
        tf.reduce_all(pairs[:8] == PNG_START) & is_small,
        lambda: size,
        lambda: tf.shape(decode_rgb(encoded))[:2],
    )


def plan_center_crop(size: tf.Tensor, resized: int, crop: int, interpolation: str) -> Plan:
    """torchvision's Resize(resized) and CenterCrop(crop) on a Pillow image, bit for bit.

    Args:
        size: height and width of the images, int32 [..., 2].
        resized: length in pixels to which the shorter side is resized.
        crop: side of the square cut from the middle, at most `resized`.
        interpolation: "bilinear" or "bicubic".
    """
    sides = tf.cast(size, tf.float64)
    shorter = tf.reduce_min(sides, -1, keepdims=True)
    size_out = tf.cast(resized * sides / shorter, tf.int32)
    # tf.round rounds half to even, as Python does.
    start = tf.cast(tf.round(tf.cast(size_out - crop, tf.float64) / 2), tf.int32)
    filters = [
        resizing_filter(
            size[..., axis],
            size_out[..., axis],
            start[..., axis, None] + tf.range(crop),
            interpolation,
            dtype=tf.float64,
        )
        for axis in (0, 1)
    ]
    return _plan(size, *filters)


def plan_resized_window(
    size: tf.Tensor, window: tf.Tensor, side: int, mirrored: tf.Tensor, interpolation: str
) -> Plan:
    """Windows resized to a square as Pillow does, but for sums on the edge of rounding.

    These may be rounded the other way, in each pass: it is for training, where speed matters more.

    Args:
        size: height and width of the images, int32 [..., 2].
        window: top, left, height and width, int32 [..., 4].
        side: of the results.
        mirrored: which of them are flipped horizontally, bool [...].
        interpolation: "bilinear" or "bicubic".
    """
    forth = tf.range(side)
    across = tf.where(mirrored[..., None], forth[::-1], forth)
    down = tf.broadcast_to(forth, tf.shape(across))
    sides = tf.constant(side)
    filters = []
    for axis, outputs in enumerate((down, across)):
        f = resizing_filter(window[..., 2 + axis], sides, outputs, interpolation, tf.float32)
        filters.append(_moved(f, window[..., axis]))
    return _plan(size, *filters)


def _plan(size, rows, columns):
    """Plan for filters that read the whole image: only what they read will be decoded."""
    inputs = [tf.cast(f.entries[..., 1], tf.int32) for f in (rows, columns)]
    corner = tf.stack([tf.reduce_min(i, [-2, -1]) for i in inputs], -1)
    end = tf.stack([tf.reduce_max(i, [-2, -1]) for i in inputs], -1) + 1
    part = with_margin(tf.concat([corner, end - corner], -1), size)
    return Plan(part, _moved(rows, -part[..., 0]), _moved(columns, -part[..., 1]))


def _moved(f, offset):
    """The filter with an offset, int32 [...], added to the positions that it reads."""
    offset = tf.stack([tf.zeros_like(offset), offset], -1)[..., None, None, :]
    return f._replace(entries=f.entries + tf.cast(offset, tf.int64))


def render(image: tf.Tensor, plan: Plan, interpolation: str) -> tf.Tensor:
    """Carries out a plan.

    Args:
        image: JPEG or PNG bytes, or uint8 [H, W, 3].
        plan: of this image.
        interpolation: with which it was planned.

    Returns:
        uint8 [side, side, 3].
    """
    if image.dtype == tf.string:
        image = decode_part(image, plan.part)
    else:
        image = tf.slice(image, *_corner_and_shape(plan.part))
    height = tf.shape(image)[0]
    # Transposed as matrices: in 3-D, TensorFlow takes three times as long.
    lines = tf.transpose(tf.reshape(image, [height, -1]))
    lines = apply_filter(tf.reshape(lines, [-1, 3 * height]), plan.columns, interpolation)
    lines = tf.transpose(tf.reshape(lines, [-1, height]))
    lines = apply_filter(lines, plan.rows, interpolation)
    return tf.reshape(lines, [lines.shape[0], -1, 3])


def _corner_and_shape(part):
    """Arguments of tf.slice."""
    return tf.pad(part[:2], [[0, 1]]), tf.pad(part[2:], [[0, 1]], constant_values=3)
