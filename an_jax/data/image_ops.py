"""Decoding, resizing and cropping that give Pillow's pixels, bit for bit, in TensorFlow ops.

Pillow resizes in two passes, horizontal first (until version 13, with which the published numbers
were made), each a sum of uint8 pixels times 22-bit fixed-point weights, rounded to uint8. Here a
pass is a block-banded float32 matrix product. Each weight is split into its high 14 and low 8
bits, so that every partial sum is an integer below 2**24 and thus exact: up to 258 taps, that is,
reductions to a 128th (bilinear) or a 64th (bicubic) of the size.
"""

from an_jax.data.tf_on_cpu import tf

_WEIGHT_BITS = 22


def decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """JPEG or PNG bytes -> uint8 [H, W, 3], as Pillow's convert("RGB"); orientation is ignored."""
    # As Pillow does; with TensorFlow's default, two thirds of the pixels would differ.
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(image, [None, None, 3])


def decode_window(encoded: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """decode_rgb(encoded)[top:top + height, left:left + width], decoding little more of a JPEG.

    Args:
        encoded: JPEG or PNG bytes.
        window: int32 [top, left, height, width].
    """
    top, left, height, width = tf.unstack(window)

    def from_jpeg():
        # Chroma is interpolated across pixels: a margin keeps the window's border exact.
        size = tf.io.extract_jpeg_shape(encoded)
        up, back = tf.minimum(top, 2), tf.minimum(left, 2)
        rows = tf.minimum(height + up + 2, size[0] - top + up)
        columns = tf.minimum(width + back + 2, size[1] - left + back)
        margin = tf.stack([top - up, left - back, rows, columns])
        image = tf.io.decode_and_crop_jpeg(
            encoded, margin, channels=3, dct_method="INTEGER_ACCURATE"
        )
        return image[up : up + height, back : back + width]

    def from_other():
        return decode_rgb(encoded)[top : top + height, left : left + width]

    return tf.cond(tf.io.is_jpeg(encoded), from_jpeg, from_other)


def image_size(encoded: tf.Tensor) -> tf.Tensor:
    """int32 [height, width] of JPEG or PNG bytes; a JPEG is not decoded for it."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: tf.shape(decode_rgb(encoded))[:2],
    )


def resize_and_center_crop(image: tf.Tensor, size: int, crop: int, interpolation: str) -> tf.Tensor:
    """torchvision's Resize(size) and CenterCrop(crop) on a Pillow image.

    Args:
        image: uint8 [H, W, 3].
        size: length in pixels to which the shorter side is resized.
        crop: side of the square cut from the middle, at most `size`.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 [crop, crop, 3].
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    shorter = tf.cast(tf.minimum(height, width), tf.float64)

    def resized(n):
        return tf.cast(size * tf.cast(n, tf.float64) / shorter, tf.int32)

    def offset(n):  # tf.round rounds half to even, as Python does
        return tf.cast(tf.round(tf.cast(n - crop, tf.float64) / 2), tf.int32)

    rows, columns = resized(height), resized(width)
    return resize(image, (rows, columns), (offset(rows), offset(columns)), crop, interpolation)


def resize(image: tf.Tensor, size, start, crop: int, interpolation: str) -> tf.Tensor:
    """Pillow's resize to `size`, of which only a square window is computed.

    Args:
        image: uint8 [H, W, 3].
        size: (rows, columns) of the whole resized image; integers or int32 scalars.
        start: (top, left) of the window in the resized image.
        crop: side of the window.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 [crop, crop, 3].
    """
    bicubic = interpolation == "bicubic"
    height, width = tf.unstack(tf.shape(image)[:2])
    rows, row_weights = _taps(height, size[0], start[0], crop, bicubic)
    columns, column_weights = _taps(width, size[1], start[1], crop, bicubic)
    # Only the part of the image under the window is read.
    row_taps, column_taps = tf.shape(row_weights)[1], tf.shape(column_weights)[1]
    image = image[rows[0] : rows[-1] + row_taps, columns[0] : columns[-1] + column_taps]
    height, width = tf.unstack(tf.shape(image)[:2])

    # Transposed as matrices: in 3-D, TensorFlow takes three times as long.
    lines = tf.transpose(tf.reshape(image, [height, width * 3]))
    lines = tf.reshape(lines, [width, 3 * height])
    lines = _filter(lines, columns - columns[0], column_weights, crop, bicubic)
    lines = tf.transpose(tf.reshape(lines, [crop * 3, height]))
    lines = _filter(lines, rows - rows[0], row_weights, crop, bicubic)
    return tf.reshape(lines, [crop, crop, 3])


def _taps(size_in, size_out, start, count: int, bicubic: bool):
    """Pillow's filter for output positions start ... start + count - 1 of one axis.

    Returns:
        First input position of each, int32 [count], and fixed-point weights, int32 [count, taps].
    """
    scale = tf.cast(size_in, tf.float64) / tf.cast(size_out, tf.float64)
    stretch = tf.maximum(scale, 1.0)  # downscaling widens the filter: antialiasing
    support = stretch * (2.0 if bicubic else 1.0)
    center = (tf.cast(tf.range(count) + start, tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(center - support + 0.5, tf.int32), 0)
    end = tf.minimum(tf.cast(center + support + 0.5, tf.int32), size_in)
    position = first[:, None] + tf.range(2 * tf.cast(tf.math.ceil(support), tf.int32) + 1)
    distance = tf.abs((tf.cast(position, tf.float64) - center[:, None] + 0.5) * (1 / stretch))
    weights = _bicubic(distance) if bicubic else tf.maximum(1.0 - distance, 0.0)
    weights = tf.where(position < end[:, None], weights, tf.zeros_like(weights))
    weights = weights / tf.reduce_sum(weights, 1, keepdims=True) * 2.0**_WEIGHT_BITS
    rounded = tf.where(weights < 0, weights - 0.5, weights + 0.5)
    return first, tf.ensure_shape(tf.cast(rounded, tf.int32), [count, None])


def _bicubic(x):
    """Keys' kernel with a = -0.5, in Pillow's order of operations."""
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return tf.where(x < 1.0, near, tf.where(x < 2.0, far, tf.zeros_like(x)))


def _filter(lines, first, weights, count: int, clip: bool):
    """Filters uint8 lines [n, m] along the first axis into uint8 [count, m].

    The outputs are grouped into blocks; a block reads one span of the input, so that the banded
    matrix is multiplied in dense pieces.
    """
    n, m = tf.unstack(tf.shape(lines))
    taps = tf.shape(weights)[1]
    blocks = max(divisor for divisor in range(1, 33) if count % divisor == 0)
    size = count // blocks
    first = tf.reshape(first, [blocks, size])
    begin = first[:, 0]
    within = first - begin[:, None]
    span = tf.reduce_max(within) + taps

    high = tf.bitwise.right_shift(weights, 8)
    low = weights - high * 256
    split = tf.stack([tf.cast(high, tf.float32) * 2.0**-14, tf.cast(low, tf.float32) * 2.0**-8])
    # Row of each weight in the matrices of all blocks: a block's high weights, then its low ones.
    row = tf.range(count) + tf.range(count) // size * size
    row = tf.reshape(tf.stack([row, row + size]), [2, count, 1])
    position = row * span + tf.reshape(within, [count, 1]) + tf.range(taps)
    bands = tf.scatter_nd(
        tf.reshape(position, [-1, 1]), tf.reshape(split, [-1]), [2 * count * span]
    )
    bands = tf.reshape(bands, [blocks, 2 * size, span])

    inputs = tf.minimum(begin[:, None] + tf.range(span), n - 1)
    sums = tf.matmul(bands, tf.cast(tf.gather(lines, inputs), tf.float32))
    outputs = sums[:, :size] + 0.5 + tf.floor(sums[:, size:]) * 2.0**-14
    if clip:  # a bicubic filter overshoots
        outputs = tf.clip_by_value(outputs, 0.0, 255.0)
    return tf.reshape(tf.cast(outputs, tf.uint8), [count, m])
