"""Batches for training, as NumPy arrays: a function of (seed, epoch, step), prepared ahead."""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from an_jax.data.images import cropping, decoding
from an_jax.data.images.augmentation import draw, plan_augmented
from an_jax.data.sources import ImageList, TfdsSplit
from an_jax.data.tf_on_cpu import tf, untuned
from an_jax.errors import InputError
from an_jax.zoo import Preprocessing

PLANNED_AT_ONCE = 32  # images; enough that each op's fixed cost does not count

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image.

    Attributes:
        crop_scale: smallest and largest share of the image's area that a crop takes.
        horizontal_flip: whether half of the images are mirrored.
    """

    crop_scale: tuple[float, float]
    horizontal_flip: bool


@dataclasses.dataclass(frozen=True)
class TrainBatch:
    """What one process feeds to its devices in one step.

    Attributes:
        images: uint8 [b, S, S, 3].
        labels: int32 [b].
        skipped: names of images that could not be read; others of the batch stand in for them.
    """

    images: np.ndarray
    labels: np.ndarray
    skipped: list[str]


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Updates in an epoch; a last partial batch counts."""
    return -(-num_examples // batch_size)


def train_batches(
    source: ImageList | TfdsSplit,
    batch_size: int,
    rows: slice,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    *,
    seed: int,
    epoch: int,
    first_step: int,
) -> Iterator[TrainBatch]:
    """The batches of an epoch, or of its rest: a function of (seed, epoch, step) and nothing else.

    Each image is seen once an epoch; the last batch is filled up from the beginning of the order.
    An image that cannot be decoded gives its place to another of the batch.

    Args:
        source: the training images.
        batch_size: of all processes together.
        rows: the part of each batch that is this process's.
        preprocessing: size and interpolation.
        augmentation: of each image.
        seed, epoch: determine the order, and with the position in it every random change.
        first_step: steps of the epoch that are left out: never decoded, and of a list of files not
            even read.

    Raises:
        InputError: a file cannot be read at all, or none of the images of a batch be decoded.
    """
    b = rows.stop - rows.start
    steps = steps_per_epoch(len(source), batch_size)
    positions = np.arange(steps * batch_size).reshape(steps, batch_size)[first_step:, rows]
    rng = np.random.default_rng([seed, epoch])
    if isinstance(source, ImageList):
        order = rng.permutation(len(source))
        examples = source.read(order[positions.ravel() % len(source)])
    else:
        first, last = (len(source) * row // batch_size for row in (rows.start, rows.stop))
        examples = source.read_shuffled(range(first, last), int(rng.integers(2**31))).repeat()
        examples = examples.skip(first_step * b).take(positions.size)

    def name(position):
        if isinstance(source, ImageList):
            return source.name(order[position % len(source)])
        return f"an image of {source.builder.info.full_name}"

    def measure(example, position):
        return {
            "image": example["image"],
            "label": example["label"],
            "position": position,
            "size": decoding.image_size(example["image"]),
            "draws": draw(tf.stack([seed * 1_000_003 + epoch, position])),
        }

    def plan(examples):
        crops = plan_augmented(
            examples.pop("size"),
            preprocessing.image_size,
            preprocessing.interpolation,
            augmentation.crop_scale,
            augmentation.horizontal_flip,
            examples.pop("draws"),
        )
        return examples, crops

    def finish(example, crop):
        image = cropping.render(example["image"], crop, preprocessing.interpolation)
        return {**example, "image": image}

    def prepare_all(examples, positions):
        dataset = tf.data.Dataset.from_tensor_slices((examples, positions))
        dataset = dataset.map(measure, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
        dataset = dataset.batch(PLANNED_AT_ONCE).map(plan, tf.data.AUTOTUNE).unbatch()
        return dataset.map(finish, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()

    dataset = tf.data.Dataset.zip(examples, tf.data.Dataset.from_tensor_slices(positions.ravel()))
    # Errors are ignored for each batch by itself, and so that those of reading are not.
    dataset = (
        dataset.batch(b)
        .prefetch(2)
        .interleave(
            prepare_all, cycle_length=2, block_length=b, num_parallel_calls=2, deterministic=True
        )
    )
    batches = _read(untuned(dataset.batch(b).prefetch(2)))
    for expected, batch in zip(positions, _by_step(batches, positions), strict=True):
        found = positions[:0] if batch is None else batch["position"]
        lost = np.setdiff1d(expected, found)
        if len(lost) == b:
            raise InputError(f"no training image of a step can be decoded, such as {name(lost[0])}")
        if len(lost):  # its place goes to the next good row
            replacing = np.searchsorted(found, expected) % len(found)
            batch = {key: values[replacing] for key, values in batch.items()}
        yield TrainBatch(batch["image"], batch["label"], [name(p) for p in lost])


def _read(dataset: tf.data.Dataset) -> Iterator[Batch]:
    """The batches. Raises InputError where a file cannot be read at all."""
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        # What the file system said comes last, after a page about the pipeline.
        line = re.sub(r"\{\{.*?\}\} | \[.*", "", error.message.splitlines()[0])
        reason = line.rpartition(": ")[2]
        raise InputError(f"the training images cannot be read: {reason}") from error


def _by_step(batches: Iterator[Batch], steps: np.ndarray) -> Iterator[Batch | None]:
    """Cuts batches anew where missing images have shifted them.

    Args:
        batches: rows in the order of their `position`.
        steps: the positions of each step, [steps, b].

    Yields:
        The rows there are of each step; None if there are none.
    """
    left = None
    for positions in steps:
        parts = []
        while not parts or parts[-1]["position"][-1] < positions[-1]:
            left = left or next(batches, None)
            n = left and np.searchsorted(left["position"], positions[-1], side="right")
            if not n:
                break
            parts.append({key: rows[:n] for key, rows in left.items()})
            left = {key: rows[n:] for key, rows in left.items()} if n < len(left["label"]) else None
        if len(parts) > 1:
            parts = [{key: np.concatenate([p[key] for p in parts]) for key in parts[0]}]
        yield parts[0] if parts else None
