"""Throughput of evaluation, compared with that of its pipeline and its model alone."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from an_jax import functional, parallel, zoo
from an_jax.benchmark import programs
from an_jax.benchmark.input.photographs import find_photographs
from an_jax.benchmark.input.pipelines import evaluation_batches, exhaust, image_list
from an_jax.benchmark.timing import Times, measure_started, rates, ratio
from an_jax.evaluation.evaluator import Evaluator
from an_jax.jax_settings import set_matmul_precision


def measure_evaluation(
    name: str,
    folder: str | None,
    batch_size: int,
    dtype: str,
    repeats: int,
    seconds: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measures the input pipeline, the model, and both together as evaluate.py runs them.

    They take turns on one device. Their start does not count.

    Args:
        name: model of the zoo.
        folder: JPEGs; None for scikit-learn's photographs.
        batch_size: images a step.
        dtype: compute dtype.
        repeats, seconds: see timing.measure_started.
        say: prints the first figure, which comes long before the others.

    Returns:
        The figures; see `summarize`.

    Raises:
        InputError: there are no photographs.
    """
    set_matmul_precision(dtype)
    mesh = parallel.make_mesh(devices=jax.devices()[:1])  # where the model alone runs
    preprocessing = zoo.get_architecture(name).preprocessing
    with tempfile.TemporaryDirectory() as scratch:
        files = find_photographs(folder, Path(scratch))

        def pipeline(n: int) -> None:
            exhaust(evaluation_batches(files, n, batch_size, preprocessing))

        first = measure_started({"pipeline": pipeline}, repeats=1, seconds=seconds)
        say(f"{name}: pipeline {batch_size / first['pipeline'].median:.1f} img/s, in a first turn")
        split = functional.split(zoo.create_model(name, dtype=jnp.dtype(dtype)))
        evaluate = Evaluator(split.definition, 1000, preprocessing, batch_size, mesh)
        params, batch_stats = parallel.replicate((split.params, split.batch_stats), mesh)
        model = programs.inference(name, batch_size, preprocessing.image_size, dtype)

        def evaluation(n: int) -> None:
            source = image_list(files, n * batch_size)
            evaluate(params, batch_stats, source, title=name, nested=True)

        runs = {"pipeline": pipeline, "inference": model.run, "evaluation": evaluation}
        times = measure_started(runs, repeats=repeats, seconds=seconds)
    return summarize(name, times, batch_size)


def summarize(name: str, times: Mapping[str, Times], batch_size: int) -> dict[str, Any]:
    """Returns the figures of one model.

    Returns:
        {"model", "pipeline", "inference", "evaluation": images a second, "share": throughput of
        evaluation over that of the slower of its two parts}, each figure with its range, such as
        "share_range"; and "bound": the share if both parts use the same cores without loss.
    """
    slower = max(times["pipeline"], times["inference"], key=lambda t: t.median)
    figures: dict[str, Any] = {"model": name}
    for key in ("pipeline", "inference", "evaluation"):
        figures |= rates(key, times[key], batch_size)
    figures |= ratio("share", times["evaluation"], slower)
    figures["bound"] = slower.median / (times["pipeline"].median + times["inference"].median)
    return figures


def describe(figures: Mapping[str, Any]) -> str:
    """Returns one line that summarizes the figures of one model."""
    return (
        "{model}: pipeline {pipeline:.1f}, inference {inference:.1f}, evaluation {evaluation:.1f} "
        "img/s; {share:.3f} ({share_range[0]:.3f} to {share_range[1]:.3f}) of the slower part "
        "({bound:.3f} if both need the same cores)"
    ).format(**figures)
