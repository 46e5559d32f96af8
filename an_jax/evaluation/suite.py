"""Evaluates models on test sets: predicts every image set, then scores every test set."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from an_jax import functional, parallel
from an_jax.checkpoint import load_model
from an_jax.data.sets.image_sets import IMAGE_SETS
from an_jax.data.sets.opening import Source
from an_jax.evaluation.class_files import write_class_files
from an_jax.evaluation.evaluator import Evaluator
from an_jax.evaluation.inputs import Inputs, Model, Settings
from an_jax.evaluation.prediction_files import PredictionFiles, make_keys, predictions_directory
from an_jax.evaluation.result import Result
from an_jax.evaluation.results_file import check_comparable_rows
from an_jax.evaluation.scoring import score, scored_predictions
from an_jax.evaluation.thumbnails import write_thumbnails
from an_jax.out_of_memory import explain_lack_of_memory
from an_jax.watchdog import note_progress
from an_jax.zoo.cost import summarize


def evaluate_models(inputs: Inputs, settings: Settings) -> Iterator[list[Result]]:
    """Evaluates one model after the other.

    Yields:
        A model's results, one a test set. Empty on all processes but the main one.

    Raises:
        InputError: on every process, if weights are not the same on all processes or do not fit
            earlier results, an image cannot be decoded, logits are not finite, a file cannot be
            written, or a test set cannot be scored.
    """
    mesh = parallel.make_mesh()
    for model in inputs.models:
        with parallel.failing_together():
            split = functional.split(load_model(model.path, dtype=jnp.dtype(settings.dtype)))
            digest = functional.digest(split.params | split.batch_stats)
        parallel.check_agreement({f"weights of {model.name}": digest})
        described = {
            "architecture": model.card.model,
            "num_params": functional.count(split.params),
            "image_size": model.preprocessing.image_size,
            "crop_pct": model.preprocessing.crop_pct,
            "interpolation": model.preprocessing.interpolation,
            "dtype": settings.dtype,
            "weights_digest": digest,
        }
        parallel.on_main_process(
            functools.partial(
                check_comparable_rows, settings.output_dir, model.name, settings.datasets, described
            )
        )
        keys = make_keys(
            digest,
            model.card.model,
            model.preprocessing,
            settings.dtype,
            {name: source.fingerprint for name, source in inputs.sources.items()},
        )
        files = PredictionFiles(predictions_directory(settings.output_dir, model.name), keys)
        _predict(model, split, inputs.sources, files, settings, mesh)
        results = parallel.on_main_process(
            functools.partial(_score, model, described, inputs, files, settings)
        )
        note_progress(f"the scores of {model.name}")
        yield results or []


def _predict(
    model: Model,
    split: functional.Split,
    sources: dict[str, Source],
    files: PredictionFiles,
    settings: Settings,
    mesh: Mesh,
) -> None:
    """Makes the predictions that have no valid file yet."""
    evaluate = Evaluator(
        split.definition, model.card.num_classes, model.preprocessing, settings.batch_size, mesh
    )
    params, batch_stats = parallel.replicate((split.params, split.batch_stats), mesh)
    for image_set, source in sources.items():
        path = parallel.on_main_process(functools.partial(files.find, image_set))
        if not parallel.broadcast_flag(path is not None):
            with explain_lack_of_memory("--batch_size", settings.batch_size):
                predictions = evaluate(
                    params,
                    batch_stats,
                    source,
                    title=f"{model.name} on {image_set}",
                    is_cropped=image_set in IMAGE_SETS and IMAGE_SETS[image_set].is_cropped,
                )
            parallel.on_main_process(functools.partial(files.save, image_set, predictions))
        if settings.save_predictions:
            parallel.on_main_process(functools.partial(files.write_csv, image_set))
        note_progress(f"{model.name} on {image_set}")


def _score(
    model: Model,
    described: Mapping[str, Any],
    inputs: Inputs,
    files: PredictionFiles,
    settings: Settings,
) -> list[Result]:
    """Scores a model on every test set, and writes its per-class files and thumbnails.

    Args:
        model: the model.
        described: the fields of its results besides the test set's.
        inputs: has the test sets.
        files: the model's predictions.
        settings: settings of the evaluation.
    """
    results = []
    load = functools.lru_cache(maxsize=1)(files.load)  # one file in memory at a time
    files.write_class_names(model.card.class_names)
    parts = summarize(model.card.model, model.preprocessing.image_size, model.card.num_classes)
    for dataset, test_set in inputs.test_sets.items():
        n, scores = score(test_set, load, inputs.references)
        if test_set.metric == "accuracy":
            predictions, space = scored_predictions(test_set, load)
            directory = settings.output_dir / "classes" / model.name / dataset
            write_class_files(directory, predictions, space, model.card.class_names)
            if settings.save_predictions:
                image_set = test_set.image_sets[0]
                write_thumbnails(
                    settings.output_dir,
                    dataset,
                    inputs.sources[image_set],
                    load(image_set).filenames,
                    predictions,
                    space,
                )
        note_progress(f"the score of {model.name} on {dataset}")
        results.append(
            Result(
                model=model.name,
                dataset=dataset,
                n=n,
                expected=test_set.num_images,
                scores=scores,
                macs=sum(part.macs for part in parts),
                **described,
            )
        )
    return results
