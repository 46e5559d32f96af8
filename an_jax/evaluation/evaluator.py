"""A model on a set of images: every image counted once, on any number of devices and processes."""

import dataclasses
from collections import deque
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from an_jax import functional, parallel
from an_jax.data.eval_pipeline import Batch, eval_batches
from an_jax.data.images.normalization import normalize_images
from an_jax.data.sets.image_sets import Source
from an_jax.errors import InputError
from an_jax.evaluation.predictions import Predictions, label_spaces
from an_jax.progress import progress_bar
from an_jax.zoo import Preprocessing


def top_predictions(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The five largest logits of each row, or all where there are fewer.

    Args:
        logits: [N, C].

    Returns:
        Their columns, best first, int32 [N, 5], and their softmax probabilities, [N, 5].
    """
    columns = jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]
    return columns, jnp.take_along_axis(jax.nn.softmax(logits), columns, axis=-1)


class Evaluator:
    """Runs a model over sets of images; compiled once for all of them.

    Args:
        definition: the model's static part.
        num_classes: number of its logits.
        preprocessing: size, crop, interpolation and normalization.
        batch_size: images a step over all devices, rounded up to a multiple of their number.
        mesh: the devices, of all processes.
    """

    def __init__(
        self, definition, num_classes: int, preprocessing: Preprocessing, batch_size: int, mesh
    ):
        self._definition, self._preprocessing, self._mesh = definition, preprocessing, mesh
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        self._spaces = label_spaces(num_classes)
        one, split = parallel.replicated(mesh), parallel.batched(mesh)
        self._step = jax.jit(
            self._eval_step,
            in_shardings=(one, one, split, split, split),
            out_shardings=(one, split),
        )

    def _eval_step(self, params, batch_stats, images, mask, failed):
        """Counts over all devices, int32: of images, of those with logits that are no numbers, of
        processes that failed; and of each image the classes and probabilities of Predictions."""
        images = normalize_images(images, self._preprocessing)
        logits = functional.apply_eval(self._definition, params, batch_stats, images)
        not_finite = mask & ~jnp.isfinite(logits).all(axis=-1)
        counts = [jnp.sum(flags, dtype=jnp.int32) for flags in (mask, not_finite, failed)]
        outputs = {}
        for space, labels in self._spaces.items():
            places, probabilities = top_predictions(logits[:, labels])
            outputs[space] = (jnp.asarray(labels, jnp.int32)[places], probabilities)
        return counts, outputs

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
            params, batch_stats: the weights, on all devices of the mesh.
            source: the images.
            title: stands before the progress bar.
            is_cropped: whether the images need no resizing and cropping.
            nested: whether the bar stands below another one.

        Returns:
            The predictions for all images, on every process.

        Raises:
            InputError: on every process, if any has a file that cannot be decoded, or logits that
                are no finite numbers.
        """
        rows: list[tuple] = []
        running: deque = deque()
        num_seen = 0

        def collect():
            nonlocal num_seen
            counts, outputs, batch, error = running.popleft()
            seen, not_finite, failed = (int(count) for count in counts)
            if failed:
                raise error or InputError(f"{title}: stopped, since another process has failed")
            if not_finite:
                raise InputError(
                    f"{title}: the logits of {not_finite} images are NaN or infinite; "
                    "the weights do not fit these inputs"
                )
            kept = batch["mask"]
            outputs = jax.tree.map(lambda array: parallel.local_rows(array)[kept], outputs)
            rows.append((batch["filename"][kept], batch["label"][kept], outputs))
            num_seen += seen
            progress.update(seen)

        hidden = not parallel.is_main_process()
        with progress_bar(len(source), title, nested=nested, hidden=hidden) as progress:
            for batch, error in self._batches(source, is_cropped):
                failed = np.full(len(batch["mask"]), error is not None)
                arrays = parallel.shard_batch((batch["image"], batch["mask"], failed), self._mesh)
                running.append((*self._step(params, batch_stats, *arrays), batch, error))
                if len(running) > 2:  # the device has work while the host collects
                    collect()
            while running:
                collect()
        if num_seen != len(source):
            raise AssertionError(f"{title}: counted {num_seen} images of {len(source)}")
        return self._gather(rows, len(source))

    def _batches(self, source: Source, is_cropped) -> Iterator[tuple[Batch, InputError | None]]:
        """This process's batches, as many as every other process has: all run the same steps.

        After an error, which comes with the batches then, they are empty.
        """
        num_processes = jax.process_count()
        batch_size = self._batch_size // num_processes
        size, crop_pct = self._preprocessing.image_size, self._preprocessing.crop_pct
        largest_share = max(map(len, parallel.shares(len(source))))
        batches = eval_batches(
            source,
            parallel.share_of_process(len(source)),
            batch_size,
            dataclasses.replace(self._preprocessing, crop_pct=1.0 if is_cropped else crop_pct),
        )
        empty = {
            "image": np.zeros((batch_size, size, size, 3), np.uint8),
            "label": np.zeros(batch_size, np.int32),
            "filename": np.zeros(batch_size, "S1"),
            "mask": np.zeros(batch_size, bool),
        }
        error = None
        for _ in range(-(-largest_share // batch_size)):
            batch = None
            if error is None:
                try:
                    batch = next(batches, None)
                except InputError as found:
                    error = found
            yield batch or empty, error

    def _gather(self, rows: list[tuple], n: int) -> Predictions:
        """This process's rows -> everyone's."""
        names, labels, outputs = zip(*rows, strict=True)
        outputs = jax.tree.map(lambda *parts: parallel.gather(np.concatenate(parts), n), *outputs)
        # File names travel as numbers, all as long as the longest.
        names = np.concatenate([np.asarray(part, np.bytes_) for part in names])
        length = parallel.largest(names.dtype.itemsize)
        letters = names.astype(f"S{length}").view(np.uint8).reshape(len(names), length)
        return Predictions(
            np.ascontiguousarray(parallel.gather(letters, n)).view(f"S{length}")[:, 0],
            parallel.gather(np.concatenate(labels), n),
            {space: classes for space, (classes, _) in outputs.items()},
            {space: probabilities for space, (_, probabilities) in outputs.items()},
        )
