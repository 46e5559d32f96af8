"""Runs a model over a set of images, each image once, on any number of devices and processes."""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from an_jax import functional, parallel
from an_jax.data.eval_pipeline import Batch, lockstep_batches
from an_jax.data.images.normalization import normalize_images
from an_jax.data.sets.opening import Source
from an_jax.errors import InputError
from an_jax.evaluation.predictions import Predictions, gather, label_spaces
from an_jax.progress import progress_bar
from an_jax.watchdog import note_progress
from an_jax.zoo import Preprocessing

T = TypeVar("T")


class Counts(NamedTuple):
    """Counts over all devices in one step, int32.

    Attributes:
        images: images, without padding.
        not_finite: images with NaN or infinite logits.
        failed: rows of processes that could not read their images.
    """

    images: jax.Array
    not_finite: jax.Array
    failed: jax.Array


class DispatchedStep(NamedTuple):
    """A dispatched step: its counts and, for every image and label space, what Predictions hold.

    Attributes:
        batch: names, labels and mask of this process's images, without the images.
        error: why this process cannot read further images.
    """

    batch: Batch
    error: Exception | None
    counts: Counts
    classes: dict[str, jax.Array]
    confidence: dict[str, jax.Array]
    nll: dict[str, jax.Array]


def top_predictions(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Finds the five largest logits of each row, or all if there are fewer.

    Args:
        logits: [N, C].

    Returns:
        Their columns, best first, int32 [N, min(5, C)], and their softmax probabilities.
    """
    columns = jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]
    return columns, jnp.take_along_axis(jax.nn.softmax(logits), columns, axis=-1)


class Evaluator:
    """Runs a model over sets of images; the model is compiled once for all sets.

    Args:
        definition: the model's static part.
        num_classes: number of its logits.
        preprocessing: size, crop, interpolation and normalization.
        batch_size: global batch size, rounded up to a multiple of the number of devices.
        mesh: the devices of all processes.
    """

    def __init__(
        self,
        definition: nnx.GraphDef,
        num_classes: int,
        preprocessing: Preprocessing,
        batch_size: int,
        mesh: Mesh,
    ):
        self._definition, self._preprocessing, self._mesh = definition, preprocessing, mesh
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        self._spaces = label_spaces(num_classes)
        replicated, sharded = parallel.replicated(mesh), parallel.batched(mesh)
        self._step = jax.jit(
            self._eval_step,
            in_shardings=(replicated, replicated, sharded, sharded, sharded, sharded),
            out_shardings=(replicated, sharded, sharded, sharded),
        )

    def __call__(
        self,
        params: functional.Arrays,
        batch_stats: functional.Arrays,
        source: Source,
        *,
        title: str,
        is_cropped: bool = False,
        nested: bool = False,
    ) -> Predictions:
        """Runs over a set of images.

        Args:
            params, batch_stats: the weights, replicated over the mesh.
            source: the images.
            title: label of the progress bar.
            is_cropped: whether the images were cropped when the set was made.
            nested: whether the bar is drawn below another one.

        Returns:
            The predictions for all images, on every process.

        Raises:
            InputError: on every process, if an image of any process cannot be decoded or its logits
                are NaN or infinite.
        """
        parts = []
        num_images = 0
        hidden = not parallel.is_main_process()
        with progress_bar(len(source), title, nested=nested, hidden=hidden) as progress:
            steps = self._dispatch(params, batch_stats, source, is_cropped)
            for step in _delay(steps, 2):  # the device has queued work while the host collects
                _check(step, title)
                parts.append(_local_predictions(step))
                num_images += int(step.counts.images)
                progress.update(int(step.counts.images))
                note_progress(f"{num_images} images of {title}")
        if num_images != len(source):
            raise AssertionError(f"{title}: counted {num_images} images of {len(source)}")
        return gather(parts, len(source))

    def _eval_step(
        self,
        params: functional.Arrays,
        batch_stats: functional.Arrays,
        images: jax.Array,
        labels: jax.Array,
        mask: jax.Array,
        failed: jax.Array,
    ) -> tuple[Counts, dict[str, jax.Array], dict[str, jax.Array], dict[str, jax.Array]]:
        images = normalize_images(images, self._preprocessing)
        logits = functional.apply_eval(self._definition, params, batch_stats, images)
        not_finite = mask & ~jnp.isfinite(logits).all(axis=-1)
        counts = Counts(*(jnp.sum(f, dtype=jnp.int32) for f in (mask, not_finite, failed)))
        classes, confidence, nll = {}, {}, {}
        for space, members in self._spaces.items():
            columns, confidence[space] = top_predictions(logits[:, members])
            classes[space] = jnp.asarray(members, jnp.int32)[columns]
            is_label = members == labels[:, None]
            log_probability = jax.nn.log_softmax(logits[:, members])
            nll[space] = -jnp.max(log_probability, axis=-1, initial=-jnp.inf, where=is_label)
        return counts, classes, confidence, nll

    def _dispatch(
        self,
        params: functional.Arrays,
        batch_stats: functional.Arrays,
        source: Source,
        is_cropped: bool,
    ) -> Iterator[DispatchedStep]:
        """Dispatches the same number of steps on every process; does not wait for results."""
        preprocessing = self._preprocessing
        if is_cropped:
            preprocessing = dataclasses.replace(preprocessing, crop_pct=1.0)
        for batch, error in lockstep_batches(source, self._batch_size, preprocessing):
            failed = np.full(len(batch["mask"]), error is not None)
            arrays = (batch["image"], batch["label"], batch["mask"], failed)
            arrays = parallel.shard_batch(arrays, self._mesh)
            results = self._step(params, batch_stats, *arrays)
            batch = {key: rows for key, rows in batch.items() if key != "image"}
            yield DispatchedStep(batch, error, *results)


def _delay(items: Iterable[T], count: int) -> Iterator[T]:
    """Yields the items, each after `count` further ones have been drawn."""
    queue: deque[T] = deque()
    for item in items:
        queue.append(item)
        if len(queue) > count:
            yield queue.popleft()
    yield from queue


def _check(step: DispatchedStep, title: str) -> None:
    """Raises an error on every process if any has failed or logits are not finite."""
    if step.counts.failed:
        raise step.error or InputError(f"{title}: stopped, since another process has failed")
    if step.counts.not_finite:
        raise InputError(
            f"{title}: the logits of {step.counts.not_finite} images are NaN or infinite; "
            "the weights do not fit these inputs"
        )


def _local_predictions(step: DispatchedStep) -> Predictions:
    """Returns the predictions for this process's images."""
    scores = jax.tree.map(parallel.local_rows, (step.classes, step.confidence, step.nll))
    batch = step.batch
    return Predictions(batch["filename"], batch["label"], *scores).select(batch["mask"])
