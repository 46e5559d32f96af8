"""Pillow's resizing filters along one axis, in TensorFlow ops, for many images at once.

Pillow sums uint8 pixels times 22-bit fixed-point weights and rounds to uint8. Here the sum is a
product with a sparse matrix, which is exact in float64. float32 takes half the time, but may round
a sum within about 2**-15 of a half in the other direction.
"""

from typing import NamedTuple

from an_jax.data.tf_on_cpu import tf

_WEIGHT_BITS = 22


class Filter(NamedTuple):
    """The entries of a sparse matrix that maps the pixels of an axis to those of the resized axis.

    Filters of several images can be stacked. Then only the first `num_taps` entries of each output
    count; the others are padding.

    Attributes:
        entries: positions of the output and the input of each weight, int64 [..., count, taps, 2].
        weights: float64 or float32 [..., count, taps].
        num_taps: number of inputs of an output, int32 [...].
    """

    entries: tf.Tensor
    weights: tf.Tensor
    num_taps: tf.Tensor


def resizing_filter(
    size_in: tf.Tensor, size_out: tf.Tensor, outputs: tf.Tensor, interpolation: str, dtype: tf.DType
) -> Filter:
    """Returns Pillow's filter for some outputs of a resized axis.

    Args:
        size_in: pixels of the axis, int32 [...].
        size_out: pixels of the whole resized axis, int32 [...].
        outputs: positions on the resized axis to compute, in any order; int32 [..., count].
        interpolation: "bilinear" or "bicubic".
        dtype: dtype of the weights and sums, float64 or float32.
    """
    bicubic = interpolation == "bicubic"
    size_in, size_out = size_in[..., None], size_out[..., None]
    scale = tf.cast(size_in, tf.float64) / tf.cast(size_out, tf.float64)
    stretch = tf.maximum(scale, 1.0)  # antialiasing: downscaling widens the filter
    support = stretch * (2.0 if bicubic else 1.0)
    center = (tf.cast(outputs, tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(center - support + 0.5, tf.int32), 0)
    last = tf.minimum(tf.cast(center + support + 0.5, tf.int32), size_in) - 1
    num_taps = tf.reduce_max(last - first, -1) + 1

    inputs = first[..., None] + tf.range(tf.reduce_max(num_taps))
    offset = tf.cast(inputs, tf.float64) - center[..., None] + 0.5
    distance = tf.abs(offset * (1 / stretch)[..., None])
    weights = _bicubic(distance) if bicubic else tf.maximum(1.0 - distance, 0.0)
    weights = tf.where(inputs > last[..., None], tf.zeros_like(weights), weights)
    weights /= tf.reduce_sum(weights, -1, keepdims=True) * 2.0**-_WEIGHT_BITS
    weights = tf.floor(tf.abs(weights) + 0.5) * tf.sign(weights) * 2.0**-_WEIGHT_BITS
    inputs = tf.minimum(inputs, last[..., None])
    rows = tf.broadcast_to(tf.range(outputs.shape[-1])[:, None], tf.shape(inputs))
    entries = tf.cast(tf.stack([rows, inputs], -1), tf.int64)
    return Filter(entries, tf.cast(weights, dtype), num_taps)


def apply_filter(lines: tf.Tensor, f: Filter, interpolation: str) -> tf.Tensor:
    """Filters uint8 lines [n, m] along the first axis; returns uint8 [count, m]."""
    count = f.weights.shape[0]
    matrix = tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=tf.reshape(f.entries[:, : f.num_taps], [-1, 2]),
        values=tf.reshape(f.weights[:, : f.num_taps], [-1]),
        dense_shape=tf.stack([count, tf.shape(lines, tf.int64)[0]]),
    )
    # Several times faster than tf.sparse.sparse_dense_matmul or a matrix of dense blocks.
    sums = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=tf.cast(lines, f.weights.dtype)) + 0.5
    if interpolation == "bicubic":  # its sums can leave the range of uint8
        sums = tf.clip_by_value(sums, 0.0, 255.0)
    return tf.ensure_shape(tf.cast(sums, tf.uint8), [count, None])


def _bicubic(x: tf.Tensor) -> tf.Tensor:
    """Keys' kernel with a = -0.5, in Pillow's order of operations."""
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return tf.where(x < 1.0, near, tf.where(x < 2.0, far, tf.zeros_like(x)))
