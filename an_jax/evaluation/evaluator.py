"""A model on a test set: every image counted once, on any number of devices."""

import csv
import dataclasses
from collections import deque
from pathlib import Path

import jax
import jax.numpy as jnp

from an_jax import functional, parallel
from an_jax.data.normalization import normalize_images
from an_jax.data.pipeline import eval_batches
from an_jax.data.test_sets import Source
from an_jax.errors import InputError
from an_jax.evaluation.metrics import is_in_top, top_predictions
from an_jax.progress import progress_bar
from an_jax.zoo import Preprocessing


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Result on a test set: fractions of the n images seen."""

    n: int
    top1: float
    top5: float


class Evaluator:
    """Evaluates a model on test sets; compiled once for all of them.

    Args:
        definition: the model's static part.
        preprocessing: size, crop, interpolation and normalization.
        batch_size: images a step over all devices, rounded up to a multiple of their number.
        mesh: the devices.
    """

    def __init__(self, definition, preprocessing: Preprocessing, batch_size: int, mesh):
        self._definition, self._preprocessing, self._mesh = definition, preprocessing, mesh
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        one, split = parallel.replicated(mesh), parallel.batched(mesh)
        self._step = jax.jit(
            self._eval_step,
            in_shardings=(one, one, split, split, split),
            out_shardings=(one, split),
        )

    def _eval_step(self, params, batch_stats, images, labels, mask):
        """Counts summed over all devices (int32), and each image's five best classes."""
        images = normalize_images(images, self._preprocessing)
        logits = functional.apply_eval(self._definition, params, batch_stats, images)
        classes, probabilities = top_predictions(logits)
        counts = {
            "n": mask,
            "top1": mask & is_in_top(classes, labels, 1),
            "top5": mask & is_in_top(classes, labels, 5),
            "not_finite": mask & ~jnp.isfinite(logits).all(axis=-1),
        }
        counts = jax.tree.map(lambda flags: jnp.sum(flags, dtype=jnp.int32), counts)
        return counts, (classes, probabilities)

    def __call__(
        self,
        params: functional.Arrays,
        batch_stats: functional.Arrays,
        source: Source,
        *,
        title: str,
        nested: bool = False,
        predictions: Path | None = None,
    ) -> Accuracy:
        """Runs over a test set.

        Args:
            params, batch_stats: the weights, on all devices of the mesh.
            source: the images.
            title: stands before the progress bar.
            nested: whether the bar stands below another one.
            predictions: CSV file to write each image's five best classes to.

        Raises:
            InputError: a file that cannot be decoded, or logits that are no finite numbers.
        """
        totals = dict.fromkeys(("n", "top1", "top5", "not_finite"), 0)
        rows: list[tuple] = []
        running: deque = deque()

        def collect():
            counts, outputs, names, labels, mask = running.popleft()
            for key, count in jax.device_get(counts).items():
                totals[key] += int(count)
            if totals["not_finite"]:
                raise InputError(
                    f"{title}: the logits of {totals['not_finite']} images are NaN or infinite; "
                    "the weights do not fit these inputs"
                )
            if predictions is not None:
                classes, probabilities = jax.device_get(outputs)
                columns = (names, labels, classes, probabilities)
                rows.extend(zip(*(column[mask] for column in columns), strict=True))
            progress.update(int(mask.sum()))

        with progress_bar(len(source), title, nested=nested) as progress:
            for batch in eval_batches(
                source, range(len(source)), self._batch_size, self._preprocessing
            ):
                arrays = parallel.shard_batch(
                    (batch["image"], batch["label"], batch["mask"]), self._mesh
                )
                counts, outputs = self._step(params, batch_stats, *arrays)
                running.append((counts, outputs, batch["filename"], batch["label"], batch["mask"]))
                if len(running) > 2:  # the device has work while the host collects
                    collect()
            while running:
                collect()
        if totals["n"] != len(source):
            raise AssertionError(f"{title}: counted {totals['n']} images of {len(source)}")
        if predictions is not None:
            _write_predictions(predictions, rows)
        n = totals["n"]
        return Accuracy(n, totals["top1"] / n, totals["top5"] / n)


def _write_predictions(path: Path, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    k = len(rows[0][2])
    ranks = range(1, k + 1)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        header = [*(f"top{i}" for i in ranks), *(f"prob{i}" for i in ranks)]
        writer.writerow(["filename", "label", *header])
        for name, label, classes, probabilities in rows:
            probabilities = (f"{p:.6f}" for p in probabilities)
            writer.writerow([name.decode(), label, *classes, *probabilities])
