"""Throughput of the input pipelines: compared with Pillow on one core, and on more cores."""

import functools
import itertools
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from an_jax.benchmark.input import by_pillow
from an_jax.benchmark.input.photographs import find_photographs
from an_jax.benchmark.processes import run_in_process
from an_jax.benchmark.timing import Run, Times, measure_started, rates, ratio
from an_jax.errors import InputError
from an_jax.zoo import Preprocessing

if TYPE_CHECKING:  # TensorFlow is imported only by the processes that measure
    from an_jax.data.sources import ImageList, TfdsSplit
    from an_jax.data.train_pipeline import TrainBatch

PREPROCESSING = Preprocessing(224, 0.875, "bilinear")
CROP_SCALE = (0.08, 1.0)
BATCH_SIZE = 32


def measure_pipelines(folder: str | None, repeats: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Measures both pipelines from files to batches: with Pillow on one core, then on more cores.

    Args:
        folder: JPEGs; None for scikit-learn's photographs.
        repeats, seconds: see timing.measure_started.

    Yields:
        {"pipeline", "cores", "samples_per_sec"}, and on one core "pillow_samples_per_sec" and
        "ratio", our throughput over Pillow's; each figure with its range, such as "ratio_range".

    Raises:
        InputError: there are no photographs, or the system is not Linux.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise InputError("--mode=data needs Linux, where a process can be bound to a core")
    cores = sorted(os.sched_getaffinity(0))
    powers_of_two = (2**i for i in range(len(cores).bit_length()))
    with tempfile.TemporaryDirectory() as scratch:
        files = find_photographs(folder, Path(scratch))
        for count in sorted({*powers_of_two, len(cores)}):
            for pipeline in ("evaluation", "training"):
                # In a new process, because TensorFlow sizes its thread pools once.
                times = run_in_process(
                    _time_batches,
                    pipeline,
                    files,
                    count == 1,
                    repeats,
                    seconds,
                    cores=cores[:count],
                )
                yield _figures(pipeline, count, times)


def describe(row: Mapping[str, Any]) -> str:
    """Returns one line that summarizes the figures of one pipeline."""
    line = "{pipeline} on {cores} cores: {samples_per_sec:.0f} img/s"
    if "ratio" in row:
        line += "; Pillow {pillow_samples_per_sec:.0f}; ratio {ratio:.2f} "
        line += "({ratio_range[0]:.2f} to {ratio_range[1]:.2f})"
    return line.format(**row)


def _figures(pipeline: str, cores: int, times: Mapping[str, Times]) -> dict[str, Any]:
    row: dict[str, Any] = {"pipeline": pipeline, "cores": cores}
    row |= rates("samples_per_sec", times["ours"], BATCH_SIZE)
    if "Pillow" in times:
        row |= rates("pillow_samples_per_sec", times["Pillow"], BATCH_SIZE)
        row |= ratio("ratio", times["ours"], times["Pillow"])
    return row


def _time_batches(
    pipeline: str, files: Sequence[Path], with_pillow: bool, repeats: int, seconds: float
) -> dict[str, Times]:
    """Returns the times of a batch, on the cores of this process."""
    ours: Callable[..., Iterable] = evaluation_batches
    pillows: Callable[..., Iterable] = by_pillow.evaluation_batches
    if pipeline == "training":
        ours = training_batches
        pillows = functools.partial(by_pillow.training_batches, crop_scale=CROP_SCALE)
    runs = {"ours": _run_of(functools.partial(ours, files))}
    if with_pillow:
        settings = {"batch_size": BATCH_SIZE, "preprocessing": PREPROCESSING}
        runs["Pillow"] = _run_of(functools.partial(pillows, files, **settings))
    return measure_started(runs, repeats=repeats, seconds=seconds)


def _run_of(make_batches: Callable[[int], Iterable]) -> Run:
    return lambda n: exhaust(make_batches(n))


def exhaust(batches: Iterable) -> None:
    """Runs a pipeline to its end, so that it does not continue during another's turn."""
    deque(batches, maxlen=0)


def image_list(files: Sequence[Path], n: int) -> "ImageList":
    """Returns n images, cycling over the files."""
    from an_jax.data.sources import ImageList

    root = os.path.commonpath([file.parent for file in files])
    names = [file.relative_to(root).as_posix() for file in files]
    return ImageList(list(itertools.islice(itertools.cycle(names), n)), np.zeros(n, np.int32), root)


def evaluation_batches(
    files: Sequence[Path],
    n: int,
    batch_size: int = BATCH_SIZE,
    preprocessing: Preprocessing = PREPROCESSING,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns the evaluation pipeline: n batches, cycling over the files."""
    from an_jax.data.eval_pipeline import eval_batches

    source = image_list(files, n * batch_size)
    return eval_batches(source, range(len(source)), batch_size, preprocessing)


def training_batches(files: Sequence[Path], n: int) -> Iterator["TrainBatch"]:
    """Returns the training pipeline: n batches, cycling over the files."""
    return training_epoch(image_list(files, n * BATCH_SIZE))


def training_epoch(source: "ImageList | TfdsSplit") -> Iterator["TrainBatch"]:
    """Returns the training pipeline: an epoch of a source."""
    from an_jax.data.train_pipeline import Augmentation, train_batches

    return train_batches(
        source,
        np.arange(BATCH_SIZE),
        slice(0, BATCH_SIZE),
        PREPROCESSING,
        Augmentation(CROP_SCALE, horizontal_flip=True),
        seed=0,
        epoch=0,
        first_step=0,
    )
