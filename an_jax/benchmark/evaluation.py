"""Evaluation as evaluate.py runs it, beside its pipeline and its model, each alone."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp

from an_jax import functional, parallel, zoo
from an_jax.benchmark import programs
from an_jax.benchmark.photographs import photographs
from an_jax.benchmark.pipelines import evaluation_batches, image_list, run_through
from an_jax.benchmark.timing import measure_started, rates, ratio
from an_jax.evaluation.evaluator import Evaluator
from an_jax.jax_settings import multiply_in


def measure_evaluation(
    name: str, folder: str | None, batch_size: int, dtype: str, repeats: int, seconds: float, say
) -> dict:
    """Images a second of the evaluation's pipeline, of the model, and of both as evaluate.py runs
    them, by turns; on one device, once they have started.

    Args:
        name: of the zoo.
        folder: of JPEGs; None for the photographs of scikit-learn.
        batch_size: images a step.
        dtype: compute dtype.
        repeats, seconds: see timing.measure_started.
        say: receives a line.

    Returns:
        {"model", "pipeline", "inference", "evaluation": images a second, "share": of evaluation
        in the slower of the two}, each of these with its range, as in "share_range"; and "bound":
        the share if both use the same cores without loss.

    Raises:
        InputError: there are no photographs.
    """
    multiply_in(dtype)
    mesh = parallel.make_mesh(devices=jax.devices()[:1])  # where the model alone runs
    preprocessing = zoo.get_architecture(name).preprocessing
    split = functional.split(zoo.create_model(name, dtype=jnp.dtype(dtype)))
    evaluate = Evaluator(split.definition, 1000, preprocessing, batch_size, mesh)
    arrays = parallel.replicate((split.params, split.batch_stats), mesh)
    model = programs.inference(name, batch_size, preprocessing.image_size, dtype)
    with tempfile.TemporaryDirectory() as scratch:
        files = photographs(folder, Path(scratch))

        def pipeline(n):
            run_through(lambda n: evaluation_batches(files, n, batch_size, preprocessing), n)

        def evaluation(n):
            evaluate(*arrays, image_list(files, n * batch_size), title=name, nested=True)

        runs = {"pipeline": pipeline, "inference": model.run, "evaluation": evaluation}
        times = measure_started(runs, repeats=repeats, seconds=seconds)
    slower = max(times["pipeline"], times["inference"], key=lambda t: t.median)
    found = {"model": name}
    for key, t in times.items():
        found |= rates(key, t, batch_size)
    found |= ratio("share", times["evaluation"], slower)
    found["bound"] = slower.median / (times["pipeline"].median + times["inference"].median)
    say(
        "{model}: pipeline {pipeline:.1f}, inference {inference:.1f}, evaluation {evaluation:.1f} "
        "img/s; {share:.3f} ({share_range[0]:.3f} to {share_range[1]:.3f}) of the slower one "
        "({bound:.3f} if both need the same cores)".format(**found)
    )
    return found
