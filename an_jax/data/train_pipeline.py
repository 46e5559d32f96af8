"""Training batches as NumPy arrays: a function of (seed, epoch, step), prepared ahead of use."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from an_jax.data.images import cropping, decoding
from an_jax.data.images.augmentation import draw, erase, plan_augmented
from an_jax.data.images.randaugment import randaugment
from an_jax.data.sources import ImageList, TfdsSplit
from an_jax.data.tf_on_cpu import explain, tf, without_autograph, without_autotune
from an_jax.errors import InputError, file_errors
from an_jax.zoo import Preprocessing

Examples = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image.

    Attributes:
        crop_scale: smallest and largest share of the image's area that a crop takes.
        horizontal_flip: whether half of the images are mirrored.
        randaugment_number: operations of RandAugment on each image; 0: none.
        randaugment_magnitude: their strength, 0 to 10.
        random_erasing: share of the images that get a window of random pixels.
    """

    crop_scale: tuple[float, float]
    horizontal_flip: bool
    randaugment_number: int = 0
    randaugment_magnitude: float = 9.0
    random_erasing: float = 0.0

    def distort(self, image: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """Applies RandAugment and random erasing to a cropped image, uint8 [S, S, 3].

        The key, int64 [2], alone determines the changes.
        """
        number, magnitude = self.randaugment_number, self.randaugment_magnitude
        fold_in = tf.random.experimental.stateless_fold_in
        if number:
            image = randaugment(image, number, magnitude, fold_in(key, 1))
        if self.random_erasing:
            image = erase(image, self.random_erasing, fold_in(key, 2))
        return image


@dataclasses.dataclass(frozen=True)
class TrainBatch:
    """The images that one process feeds to its devices in one step.

    Attributes:
        images: uint8 [b, S, S, 3].
        labels: int32 [b].
        skipped: names of images that cannot be decoded; others of the batch replace them.
    """

    images: np.ndarray
    labels: np.ndarray
    skipped: list[str]


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Returns the number of updates in an epoch; a last partial batch counts."""
    return -(-num_examples // batch_size)


def train_batches(
    source: ImageList | TfdsSplit,
    rows: np.ndarray,
    share: slice,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    *,
    seed: int,
    epoch: int,
    first_step: int,
) -> Iterator[TrainBatch]:
    """Yields the batches of an epoch, or of its rest, as a function of (seed, epoch, step).

    An epoch contains each image once, and some a second time to fill up the last batch. Another
    image of the batch replaces one that cannot be decoded.

    Args:
        source: the training images.
        rows: a permutation of the rows of a global batch: the order in which processes hold them.
        share: this process's slice of `rows`.
        preprocessing: size and interpolation.
        augmentation: random changes of each image.
        seed, epoch: determine the order, and with the position in it every random change.
        first_step: step to resume at. Images of earlier steps are not decoded; an ImageList does
            not read them.

    Raises:
        InputError: a file cannot be read, or no image of a batch can be decoded.
    """
    steps = range(first_step, steps_per_epoch(len(source), len(rows)))
    if not steps:
        return
    b = share.stop - share.start
    examples = source.read_epoch(np.random.default_rng([seed, epoch]), rows, share, steps)
    positions = np.arange(steps.stop * len(rows)).reshape(-1, len(rows))[first_step:, rows[share]]
    random_keys = np.stack(
        [np.full(positions.size, seed * 1_000_003 + epoch), positions.ravel()], axis=-1
    )
    dataset = tf.data.Dataset.zip(examples, tf.data.Dataset.from_tensor_slices(random_keys))
    dataset = (
        dataset.batch(b, drop_remainder=True)  # no batch is partial; this fixes the shape
        .prefetch(2)
        .interleave(
            without_autograph(
                lambda examples, keys: _prepare_step(examples, keys, preprocessing, augmentation)
            ),
            cycle_length=2,
            num_parallel_calls=2,
            deterministic=True,
        )
    )
    for prepared, filenames in _read(without_autotune(dataset.prefetch(2))):
        decoded, names = prepared["row"], [source.name_of(name.decode()) for name in filenames]
        skipped = [names[row] for row in np.setdiff1d(np.arange(b), decoded)]
        if len(skipped) == b:
            raise InputError(f"no training image of a step can be decoded, such as {skipped[0]}")
        # The next row that was decoded replaces one that was not.
        rows_to_take = np.searchsorted(decoded, np.arange(b)) % len(decoded)
        yield TrainBatch(prepared["image"][rows_to_take], prepared["label"][rows_to_take], skipped)


def _prepare_step(
    examples: Examples, keys: tf.Tensor, preprocessing: Preprocessing, augmentation: Augmentation
) -> tf.data.Dataset:
    """Decodes and augments the examples of one step.

    Args:
        examples: image (encoded), label and filename, each [b].
        keys: int64 [b, 2], determine the random changes.

    Returns:
        A dataset of one element: the examples that can be decoded, with the `row` of each, and the
        file names of all.
    """

    def measure(example: Examples, key: tf.Tensor, row: tf.Tensor) -> Examples:
        return {
            "row": row,
            "image": example["image"],
            "label": example["label"],
            "size": decoding.image_size(example["image"]),
            "draws": draw(key),
            "key": key,
        }

    def plan(examples: Examples) -> tuple[Examples, cropping.Plan]:
        crops = plan_augmented(
            examples.pop("size"),
            preprocessing.image_size,
            preprocessing.interpolation,
            augmentation.crop_scale,
            augmentation.horizontal_flip,
            examples.pop("draws"),
        )
        return examples, crops

    def render(example: Examples, crop: cropping.Plan) -> Examples:
        image = cropping.render(example["image"], crop, preprocessing.interpolation)
        image = tf.ensure_shape(image, [side, side, 3])
        image = augmentation.distort(image, example.pop("key"))
        return {**example, "image": image}

    b, side = keys.shape[0], preprocessing.image_size
    # Only errors of decoding are ignored; those of reading occur before this function.
    rows = tf.data.Dataset.from_tensor_slices((examples, keys, tf.range(b)))
    rows = rows.map(measure, tf.data.AUTOTUNE).ignore_errors()
    rows = rows.batch(cropping.PLANNED_AT_ONCE).map(plan, tf.data.AUTOTUNE).unbatch()
    rows = rows.map(render, tf.data.AUTOTUNE).ignore_errors()
    no_rows = {  # the batch of a step without any image that can be decoded
        "row": tf.zeros([0], tf.int32),
        "image": tf.zeros([0, side, side, 3], tf.uint8),
        "label": tf.zeros([0], tf.int32),
    }
    batch = rows.batch(b).concatenate(tf.data.Dataset.from_tensors(no_rows)).take(1)
    return tf.data.Dataset.zip(batch, tf.data.Dataset.from_tensors(examples["filename"]))


def _read(dataset: tf.data.Dataset) -> Iterator[Any]:
    """Yields the elements. Raises InputError where a file cannot be read at all."""
    try:
        yield from dataset.as_numpy_iterator()
    except file_errors() as error:
        raise InputError(f"the training images cannot be read: {explain(error)}") from error
