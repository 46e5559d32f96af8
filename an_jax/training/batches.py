"""This process's batches of an epoch, in step with the other processes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
import ml_collections
import numpy as np

from an_jax import parallel
from an_jax.checkpoint import ModelCard
from an_jax.data.sets.train_sets import TrainSet
from an_jax.data.train_pipeline import Augmentation, TrainBatch, steps_per_epoch, train_batches
from an_jax.training.norm_groups import NormGroups
from an_jax.training.targets import FAILED

T = TypeVar("T")


def epoch_batches(
    config: ml_collections.ConfigDict,
    card: ModelCard,
    train_set: TrainSet,
    groups: NormGroups,
    mesh: jax.sharding.Mesh,
    epoch: int,
    first_step: int,
    check: Callable[[], None],
) -> Iterator[tuple[TrainBatch, Exception | None]]:
    """Yields this process's batches of an epoch from a step on.

    A process that has failed must not leave the others waiting for it. It therefore yields batches
    whose labels make the loss NaN, which all processes notice at the same step.

    Args:
        config: the configuration.
        card: the model's card.
        train_set: the images.
        groups: how the devices divide a batch.
        mesh: the devices.
        epoch: number of the epoch, from 0.
        first_step: number of steps of this epoch that are done.
        check: raises an error if this process must stop; called before each batch.

    Yields:
        A batch, and the error of this process, if it has failed.
    """
    share = parallel.local_range(config.batch_size)
    order = parallel.process_order(mesh, config.batch_size)
    batches = train_batches(
        train_set.source,
        groups.rows(config.batch_size)[order],
        slice(share.start, share.stop),
        card.preprocessing,
        Augmentation(
            tuple(config.crop_scale),
            config.horizontal_flip,
            config.randaugment_number,
            config.randaugment_magnitude,
            config.random_erasing,
        ),
        seed=config.seed,
        epoch=epoch,
        first_step=first_step,
    )
    b, side = len(share), card.preprocessing.image_size
    failed = TrainBatch(
        np.zeros((b, side, side, 3), np.uint8), np.full(b, FAILED, np.int32), skipped=[]
    )
    error: Exception | None = None
    for _ in range(first_step, steps_per_epoch(len(train_set.source), config.batch_size)):
        batch = None
        if error is None:
            try:
                check()
                batch = next(batches)
            except Exception as caught:
                if jax.process_count() == 1:
                    raise
                error = caught
        yield batch or failed, error


def begin(batches: Iterator[T]) -> Iterator[T]:
    """Has the first batch prepared in the background, and returns an iterator over all."""
    thread = ThreadPoolExecutor(1)
    first = thread.submit(next, batches, None)
    thread.shutdown(wait=False)

    def iterate() -> Iterator[T]:
        batch = first.result()
        if batch is not None:
            yield batch
            yield from batches

    return iterate()
