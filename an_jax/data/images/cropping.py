"""Resizing and cropping to the pixels that Pillow gives, in TensorFlow ops.

Pillow resizes in two passes and rounds to uint8 after each. The horizontal pass comes first, as in
Pillow up to version 12, which the published numbers were made with. The filters of both passes
depend on an image's size only, so they are planned for many images at once: each TensorFlow op
costs microseconds, however small its inputs.
"""

from typing import NamedTuple

from an_jax.data.images.decoding import add_margin, decode_part, slice_part
from an_jax.data.images.filters import Filter, apply_filter, resizing_filter
from an_jax.data.tf_on_cpu import tf

PLANNED_AT_ONCE = 32  # images; enough to spread the fixed cost of each op


class Plan(NamedTuple):
    """How an image is decoded, resized and cropped; plans of several images can be stacked.

    Attributes:
        part: the part of the image to decode: top, left, height, width, int32 [..., 4].
        rows: filter of the vertical pass; reads rows of `part`.
        columns: filter of the horizontal pass; reads columns of `part`.
    """

    part: tf.Tensor
    rows: Filter
    columns: Filter


def plan_center_crop(size: tf.Tensor, resized: int, crop: int, interpolation: str) -> Plan:
    """Plans torchvision's Resize(resized) and CenterCrop(crop), bit for bit.

    Args:
        size: height and width of the images, int32 [..., 2].
        resized: length of the shorter side after resizing, in pixels.
        crop: side of the square cut from the center, at most `resized`.
        interpolation: "bilinear" or "bicubic".
    """
    sides = tf.cast(size, tf.float64)
    shorter = tf.reduce_min(sides, -1, keepdims=True)
    size_out = tf.cast(resized * sides / shorter, tf.int32)
    # tf.round rounds half to even, as Python does.
    start = tf.cast(tf.round(tf.cast(size_out - crop, tf.float64) / 2), tf.int32)
    rows, columns = (
        resizing_filter(
            size[..., axis],
            size_out[..., axis],
            start[..., axis, None] + tf.range(crop),
            interpolation,
            dtype=tf.float64,
        )
        for axis in (0, 1)
    )
    return _plan(size, rows, columns)


def plan_resized_window(
    size: tf.Tensor, window: tf.Tensor, side: int, is_mirrored: tf.Tensor, interpolation: str
) -> Plan:
    """Plans windows resized to a square, for training.

    The filters are float32, which is faster than float64: in each pass, a sum close to a half may
    be rounded in the other direction than Pillow rounds it.

    Args:
        size: height and width of the images, int32 [..., 2].
        window: top, left, height and width, int32 [..., 4].
        side: side of the results.
        is_mirrored: which of them are flipped horizontally, bool [...].
        interpolation: "bilinear" or "bicubic".
    """
    positions = tf.range(side)
    across = tf.where(is_mirrored[..., None], positions[::-1], positions)
    down = tf.broadcast_to(positions, tf.shape(across))
    rows, columns = (
        resizing_filter(
            window[..., 2 + axis], tf.constant(side), outputs, interpolation, tf.float32
        )
        for axis, outputs in enumerate((down, across))
    )
    return _plan(size, _shift(rows, window[..., 0]), _shift(columns, window[..., 1]))


def _plan(size: tf.Tensor, rows: Filter, columns: Filter) -> Plan:
    """Plans to decode only the part of the image that the filters read."""
    inputs = [tf.cast(f.entries[..., 1], tf.int32) for f in (rows, columns)]
    corner = tf.stack([tf.reduce_min(i, [-2, -1]) for i in inputs], -1)
    end = tf.stack([tf.reduce_max(i, [-2, -1]) for i in inputs], -1) + 1
    part = add_margin(tf.concat([corner, end - corner], -1), size)
    return Plan(part, _shift(rows, -part[..., 0]), _shift(columns, -part[..., 1]))


def _shift(f: Filter, offset: tf.Tensor) -> Filter:
    """Adds an offset, int32 [...], to the positions that a filter reads."""
    offset = tf.stack([tf.zeros_like(offset), offset], -1)[..., None, None, :]
    return f._replace(entries=f.entries + tf.cast(offset, tf.int64))


def render(image: tf.Tensor, plan: Plan, interpolation: str) -> tf.Tensor:
    """Decodes, resizes and crops an image as planned.

    Args:
        image: bytes of an image file, or uint8 [H, W, 3].
        plan: the plan of this image.
        interpolation: the interpolation of the plan.

    Returns:
        uint8 [side, side, 3].
    """
    is_encoded = image.dtype == tf.string
    image = decode_part(image, plan.part) if is_encoded else slice_part(image, plan.part)
    height = tf.shape(image)[0]
    # Transposed as matrices: TensorFlow transposes 3-D arrays three times more slowly.
    lines = tf.transpose(tf.reshape(image, [height, -1]))
    lines = apply_filter(tf.reshape(lines, [-1, 3 * height]), plan.columns, interpolation)
    lines = tf.transpose(tf.reshape(lines, [-1, height]))
    lines = apply_filter(lines, plan.rows, interpolation)
    return tf.reshape(lines, [lines.shape[0], -1, 3])
