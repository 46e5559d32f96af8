"""Batches of images for evaluation, read ahead by tf.data, as NumPy arrays."""

from collections.abc import Iterator

import jax
import numpy as np

from an_jax import parallel
from an_jax.data.images import cropping, decoding
from an_jax.data.images.videos import VideoList
from an_jax.data.sets.opening import Source
from an_jax.data.tf_on_cpu import explain, tf, without_autograph, without_autotune
from an_jax.errors import InputError
from an_jax.zoo import Preprocessing

Batch = dict[str, np.ndarray]
Example = dict[str, tf.Tensor]


def eval_batches(
    source: Source, share: range, batch_size: int, preprocessing: Preprocessing
) -> Iterator[Batch]:
    """Yields every image of `share` once, in order; the last batch is padded and masked.

    Args:
        source: the whole set.
        share: positions that this process evaluates.
        batch_size: rows of each batch.
        preprocessing: size, crop and interpolation.

    Yields:
        image uint8 [B, S, S, 3], label int32 [B], filename [B], mask bool [B] (False: padding).

    Raises:
        InputError: a file cannot be read or decoded; the message names it.
    """
    size, interpolation = preprocessing.image_size, preprocessing.interpolation
    resized = int(size / preprocessing.crop_pct)
    examples = source.read(share).map(_measure, num_parallel_calls=tf.data.AUTOTUNE)
    # Frames are decoded already and differ in size, so they cannot be stacked.
    is_encoded = examples.element_spec["image"].dtype == tf.string
    planned_at_once = min(batch_size, cropping.PLANNED_AT_ONCE) if is_encoded else 1
    rendered = (
        examples.batch(planned_at_once)
        .map(
            without_autograph(lambda batch: _plan(batch, resized, size, interpolation)),
            tf.data.AUTOTUNE,
        )
        .unbatch()
        .map(without_autograph(lambda example: _render(example, interpolation)), tf.data.AUTOTUNE)
    )
    batches = without_autotune(rendered.batch(batch_size).prefetch(2)).as_numpy_iterator()
    num_read = 0
    while True:
        try:
            batch = next(batches, None)
        except tf.errors.OpError as error:
            # Images that are planned at once may belong to two batches.
            end = num_read + batch_size + planned_at_once
            raise _name_unreadable(source, share[num_read:end], error) from error
        if batch is None:
            return
        n = len(batch["label"])
        num_read += n
        if n < batch_size:
            batch = {
                key: np.concatenate([rows, np.repeat(rows[-1:], batch_size - n, axis=0)])
                for key, rows in batch.items()
            }
        yield {**batch, "mask": np.arange(batch_size) < n}


def lockstep_batches(
    source: Source, batch_size: int, preprocessing: Preprocessing
) -> Iterator[tuple[Batch, Exception | None]]:
    """Yields this process's batches, padded with empty ones to the same number on every process.

    Args:
        source: the whole set.
        batch_size: global batch size.
        preprocessing: size, crop and interpolation.

    Yields:
        A batch, and the error after which this process yields empty batches.
    """
    rows, size = batch_size // jax.process_count(), preprocessing.image_size
    empty = {
        "image": np.zeros((rows, size, size, 3), np.uint8),
        "label": np.zeros(rows, np.int32),
        "filename": np.zeros(rows, "S1"),
        "mask": np.zeros(rows, bool),
    }
    share = parallel.local_range(len(source))
    batches = eval_batches(source, share, rows, preprocessing)
    largest_share = max(map(len, parallel.process_ranges(len(source))))
    error: Exception | None = None
    for _ in range(-(-largest_share // rows)):
        batch = None
        if error is None:
            try:
                batch = next(batches, None)
            except Exception as read_error:
                error = read_error
        yield batch or empty, error


# TensorFlow traces a `tf.function` once for all image sets, not once for each.
@tf.function(autograph=False)
def _measure(example: Example) -> Example:
    """Adds the image's height and width."""
    image = example["image"]
    is_encoded = image.dtype == tf.string
    return {**example, "size": decoding.image_size(image) if is_encoded else tf.shape(image)[:2]}


@tf.function(autograph=False)
def _plan(batch: Example, resized: int, crop: int, interpolation: str) -> Example:
    """Adds the images' plans."""
    plan = cropping.plan_center_crop(batch["size"], resized, crop, interpolation)
    return {**batch, "plan": plan}


@tf.function(autograph=False)
def _render(example: Example, interpolation: str) -> Example:
    """Decodes, resizes and crops an image."""
    # Decodes the whole image, so that a truncated file is an error.
    image = cropping.render(_rgb(example["image"]), example["plan"], interpolation)
    return {"image": image, "label": example["label"], "filename": example["filename"]}


def _rgb(image: tf.Tensor) -> tf.Tensor:
    """Decodes an image to uint8 [H, W, 3]; a frame is decoded already."""
    return decoding.decode_rgb(image) if image.dtype == tf.string else image


def _name_unreadable(source: Source, positions: range, error: tf.errors.OpError) -> InputError:
    """Finds the file behind an error, since tf.data does not name it."""
    files = source.videos if isinstance(source, VideoList) else source
    for position in positions:
        try:
            (example,) = source.read(range(position, position + 1))
        except tf.errors.OpError as read_error:
            if isinstance(source, VideoList) and _is_of_decoder(read_error):
                return _call_corrupt(source, position)
            reason = f"cannot be read: {explain(read_error)}"
            try:
                return InputError(f"{source.name(position)} {reason}")
            except tf.errors.OpError:  # an example of tfds, which has its name inside
                return InputError(f"{files.name_of(f'example {position}')} {reason}")
        try:
            _rgb(example["image"])
        except tf.errors.OpError:
            return _call_corrupt(source, position)
    first = source.name(positions[0])
    return InputError(f"{first} or one of the next images cannot be read: {explain(error)}")


def _is_of_decoder(error: tf.errors.OpError) -> bool:
    """Whether a video's decoder, a Python function, raised the error."""
    return isinstance(error, (tf.errors.InvalidArgumentError, tf.errors.UnknownError))


def _call_corrupt(source: Source, position: int) -> InputError:
    name = source.name(position)
    return InputError(f"{name} is corrupt or no {source.kind}; replace or remove it")
