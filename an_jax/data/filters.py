"""Pillow's resizing filters along one axis, in TensorFlow ops, for many images at once.

Pillow sums uint8 pixels times 22-bit fixed-point weights and rounds to uint8. Here the sum is a
float32 product. To be exact, each weight is split into its high 14 and low 8 bits, so that every
partial sum is an integer below 2**24: up to 258 taps, that is, reductions to a 128th (bilinear) or
a 64th (bicubic) of the size. Unsplit, it takes two thirds of the time, and a sum that lies within
about 2**-15 of a half may be rounded the other way.
"""

from typing import NamedTuple

from an_jax.data.tf_on_cpu import tf

_WEIGHT_BITS = 22
_LOW_BITS = 8


class Filter(NamedTuple):
    """How the outputs of an axis come from its inputs.

    Filters of several images can be stacked; all but the first `num_taps` columns are filling then.

    Attributes:
        inputs: positions that each output reads, int32 [..., count, taps].
        weights: of these, float32 [..., parts, count, taps]; two parts, high and low, where they
            are split, else one.
        num_taps: of this image, int32 [...].
    """

    inputs: tf.Tensor
    weights: tf.Tensor
    num_taps: tf.Tensor


def resizing_filter(
    size_in: tf.Tensor, size_out: tf.Tensor, outputs: tf.Tensor, interpolation: str, exact: bool
) -> Filter:
    """Pillow's filter for some outputs of a resized axis.

    Args:
        size_in: pixels of the axis, int32 [...].
        size_out: pixels of the whole resized axis, int32 [...].
        outputs: which of these are wanted, in any order; int32 [..., count].
        interpolation: "bilinear" or "bicubic".
        exact: whether weights are split.
    """
    bicubic = interpolation == "bicubic"
    size_in, size_out = size_in[..., None], tf.convert_to_tensor(size_out)[..., None]
    scale = tf.cast(size_in, tf.float64) / tf.cast(size_out, tf.float64)
    stretch = tf.maximum(scale, 1.0)  # downscaling widens the filter: antialiasing
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
    weights = tf.floor(tf.abs(weights) + 0.5) * tf.sign(weights)
    parts = _split(weights) if exact else [weights * 2.0**-_WEIGHT_BITS]
    parts = tf.stack([tf.cast(part, tf.float32) for part in parts], -3)
    return Filter(tf.minimum(inputs, last[..., None]), parts, num_taps)


def apply_filter(lines: tf.Tensor, f: Filter) -> tf.Tensor:
    """Filters uint8 lines [n, m] along the first axis into uint8 [count, m]."""
    pixels = tf.cast(tf.gather(lines, f.inputs[:, : f.num_taps]), tf.float32)
    # A batch of products of a row and a matrix: several times as fast as one of larger matrices.
    rows = tf.unstack(f.weights[:, :, None, : f.num_taps])
    sums = [tf.matmul(row, pixels) for row in rows]
    total = sums[0]
    if len(sums) == 2:
        total += tf.floor(sums[1]) * 2.0 ** (_LOW_BITS - _WEIGHT_BITS)
    # One op that adds a half, clips (a bicubic filter overshoots) and truncates.
    rounded, _, _ = tf.raw_ops.QuantizeV2(
        input=total, min_range=0.0, max_range=255.0, T=tf.quint8, mode="MIN_FIRST"
    )
    return tf.squeeze(tf.bitcast(rounded, tf.uint8), 1)


def _bicubic(x):
    """Keys' kernel with a = -0.5, in Pillow's order of operations."""
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return tf.where(x < 1.0, near, tf.where(x < 2.0, far, tf.zeros_like(x)))


def _split(weights):
    """High and low bits of integers, the low ones in units of the high ones' last bit."""
    high = tf.floor(weights * 2.0**-_LOW_BITS)
    low = weights - high * 2.0**_LOW_BITS
    return high * 2.0 ** (_LOW_BITS - _WEIGHT_BITS), low * 2.0**-_LOW_BITS
