"""Input pipelines: beside Pillow on one core, and on more cores."""

import functools
import itertools
import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from an_jax.benchmark import by_pillow
from an_jax.benchmark.photographs import photographs
from an_jax.benchmark.timing import Times, measure_started, rates, ratio
from an_jax.errors import InputError
from an_jax.zoo import Preprocessing

PREPROCESSING = Preprocessing(224, 0.875, "bilinear")
CROP_SCALE = (0.08, 1.0)
BATCH_SIZE = 32


def measure_pipelines(folder: str | None, repeats: int, seconds: float, say) -> list[dict]:
    """Images a second of both pipelines, from files, on one core beside Pillow, then on more.

    Args:
        folder: of JPEGs; None for the photographs of scikit-learn.
        repeats, seconds: see timing.measure_started.
        say: receives a line for each result.

    Returns:
        Rows of {"pipeline", "cores", "samples_per_sec"}, on one core with "pillow_samples_per_sec"
        and "ratio", ours over Pillow's; each of these with its range, as in "ratio_range".

    Raises:
        InputError: there are no photographs, or this is not Linux.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("--mode=data needs Linux, where a process can be bound to a core")
    cores = sorted(os.sched_getaffinity(0))
    counts = sorted({*(2**i for i in range(len(cores).bit_length())), len(cores)})
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        files = photographs(folder, Path(scratch))
        for count in counts:
            # In a process of its own, for TensorFlow makes its threads once.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(
                1, context, initializer=os.sched_setaffinity, initargs=(0, cores[:count])
            ) as pool:
                times = pool.submit(_measure, files, count == 1, repeats, seconds).result()
            for pipeline in ("evaluation", "training"):
                row = {"pipeline": pipeline, "cores": count}
                row |= rates("samples_per_sec", times[pipeline], BATCH_SIZE)
                line = "{pipeline} on {cores} cores: {samples_per_sec:.0f} img/s"
                if count == 1:
                    pillow = times[f"{pipeline}, Pillow"]
                    row |= rates("pillow_samples_per_sec", pillow, BATCH_SIZE)
                    row |= ratio("ratio", times[pipeline], pillow)
                    line += "; Pillow {pillow_samples_per_sec:.0f}; ratio {ratio:.2f} "
                    line += "({ratio_range[0]:.2f} to {ratio_range[1]:.2f})"
                say(line.format(**row))
                rows.append(row)
    return rows


def _measure(files, with_pillow, repeats, seconds) -> dict[str, Times]:
    """Times of a batch of each program, on the cores of this process."""
    pipelines = {
        "evaluation": functools.partial(evaluation_batches, files),
        "training": functools.partial(training_batches, files),
    }
    if with_pillow:
        pipelines["evaluation, Pillow"] = lambda n: by_pillow.evaluation_batches(
            files, n, BATCH_SIZE, PREPROCESSING
        )
        pipelines["training, Pillow"] = lambda n: by_pillow.training_batches(
            files, n, BATCH_SIZE, PREPROCESSING, CROP_SCALE
        )
    runs = {name: functools.partial(run_through, batches) for name, batches in pipelines.items()}
    return measure_started(runs, repeats=repeats, seconds=seconds)


def run_through(batches: Callable[[int], Iterator], n: int) -> None:
    """Runs a pipeline anew, and to its end: none goes on while others have their turn."""
    deque(batches(n), maxlen=0)


def image_list(files: list[Path], n: int):
    """n images: the files over and over."""
    from an_jax.data.sources import ImageList

    root = os.path.commonpath([file.parent for file in files])
    names = [file.relative_to(root).as_posix() for file in files]
    return ImageList(list(itertools.islice(itertools.cycle(names), n)), np.zeros(n, np.int32), root)


def evaluation_batches(
    files: list[Path],
    n: int,
    batch_size: int = BATCH_SIZE,
    preprocessing: Preprocessing = PREPROCESSING,
) -> Iterator:
    """n batches of the files over and over, as evaluation gets them."""
    from an_jax.data.eval_pipeline import eval_batches

    source = image_list(files, n * batch_size)
    return eval_batches(source, range(len(source)), batch_size, preprocessing)


def training_batches(files: list[Path], n: int) -> Iterator:
    """n batches of the files over and over, as training gets them."""
    from an_jax.data.train_pipeline import Augmentation, train_batches

    return train_batches(
        image_list(files, n * BATCH_SIZE),
        BATCH_SIZE,
        slice(0, BATCH_SIZE),
        PREPROCESSING,
        Augmentation(CROP_SCALE, horizontal_flip=True),
        seed=0,
        epoch=0,
        first_step=0,
    )
