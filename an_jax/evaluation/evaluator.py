"""A model on a test set: every image counted once, on any number of devices."""

import csv
import dataclasses
from collections import deque
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from an_jax import functional, parallel
from an_jax.data.normalization import normalize_images
from an_jax.data.pipeline import eval_batches
from an_jax.data.test_sets import Source
from an_jax.errors import InputError
from an_jax.evaluation.metrics import is_in_top, top_predictions
from an_jax.zoo import Preprocessing


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Result on a test set: fractions of the n images seen."""

    n: int
    top1: float
    top5: float


def make_eval_step(definition, mesh: jax.sharding.Mesh, preprocessing: Preprocessing) -> Callable:
    """The compiled step: (params, batch_stats, images, labels, mask) -> (counts, predictions).

    Images are uint8 [N, H, W, 3] and split over the mesh, as are labels and mask. The counts are
    int32 sums over all devices: images seen, top-1 and top-5 correct, images with a logit that
    is no finite number. The predictions are the top five classes and probabilities, [N, 5].
    """

    def step(params, batch_stats, images, labels, mask):
        images = normalize_images(images, preprocessing)
        logits = functional.apply_eval(definition, params, batch_stats, images)
        classes, probabilities = top_predictions(logits)
        counts = {
            "n": mask,
            "top1": mask & is_in_top(classes, labels, 1),
            "top5": mask & is_in_top(classes, labels, 5),
            "not_finite": mask & ~jnp.isfinite(logits).all(axis=-1),
        }
        counts = jax.tree.map(lambda flags: jnp.sum(flags, dtype=jnp.int32), counts)
        return counts, (classes, probabilities)

    one, split = parallel.replicated(mesh), parallel.batched(mesh)
    return jax.jit(step, in_shardings=(one, one, split, split, split), out_shardings=(one, split))


def evaluate(
    step: Callable,
    params: functional.Arrays,
    batch_stats: functional.Arrays,
    source: Source,
    preprocessing: Preprocessing,
    batch_size: int,
    mesh: jax.sharding.Mesh,
    *,
    title: str,
    leave_progress: bool = True,
    predictions: Path | None = None,
) -> Accuracy:
    """Runs a compiled step over a test set.

    Args:
        step: of make_eval_step.
        params, batch_stats: on all devices of the mesh.
        source: the images.
        preprocessing: size, crop and interpolation.
        batch_size: images a step over all devices; a multiple of their number.
        mesh: the devices.
        title: stands before the progress bar.
        leave_progress: whether the bar stays when it is full.
        predictions: CSV file to write each image's five best classes to.

    Raises:
        InputError: a file that cannot be decoded, or logits that are no finite numbers.
    """
    share, local_size = range(len(source)), batch_size
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
                "the weights do not fit these inputs (see --image_size, --dtype)"
            )
        if predictions is not None:
            classes, probabilities = jax.device_get(outputs)
            rows.extend(zip(names[mask], labels[mask], classes[mask], probabilities[mask]))
        progress.update(int(mask.sum()))

    with tqdm(total=len(share), desc=title, unit="img", leave=leave_progress) as progress:
        for batch in eval_batches(source, share, local_size, preprocessing):
            arrays = parallel.shard_batch((batch["image"], batch["label"], batch["mask"]), mesh)
            counts, outputs = step(params, batch_stats, *arrays)
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
