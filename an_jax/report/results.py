"""The results of one or several output directories as data for the page."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from an_jax.data.sets.test_sets import get_test_set
from an_jax.errors import InputError
from an_jax.evaluation.output import EXTRA_SCORES, SINGLE_SCORES
from an_jax.evaluation.published import wilson_interval
from an_jax.evaluation.result import Result, bn_counterpart
from an_jax.evaluation.results_file import RESULTS, read_results
from an_jax.zoo.released import RELEASED

BENCHMARK = "benchmark.csv"
_LOWER_IS_BETTER = {
    *("nll", "rms_calibration_error", "mce", "relative_mce"),
    *("mean_flip_probability", "mean_top5_distance", "mfr", "mt5d"),
}
_NOT_FRACTIONS = {"nll", "mean_top5_distance"}  # the others are shown in percent
_ACCURACIES = {"top1": "top-1 accuracy", "top5": "top-5 accuracy"}


class Evaluation(NamedTuple):
    """The results of one --output_dir of evaluate.py.

    Attributes:
        directory: the directory.
        results: the entries of its results.json.
        rates: model -> images per second in its benchmark.csv; empty without that file.
    """

    directory: epath.Path
    results: list[Result]
    rates: dict[str, float]


def read_evaluation(directory: epath.Path) -> Evaluation:
    """Reads the results, and benchmark.csv if `python benchmark.py --mode=infer --csv` wrote one.

    Raises:
        InputError: there are no results, or a file is damaged.
    """
    results = read_results(directory)
    if not results:
        raise InputError(f"{directory} has no {RESULTS}: give an --output_dir of evaluate.py")
    return Evaluation(directory, results, _read_rates(directory / BENCHMARK))


def _read_rates(path: epath.Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    try:
        rows = csv.DictReader(io.StringIO(path.read_text()))
        return {row["model"]: float(row["infer_samples_per_sec"]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a table of `python benchmark.py --mode=infer --csv` ({error!r})"
        ) from error


def collect_results(outputs: Sequence[Evaluation]) -> dict[str, Any]:
    """Returns models, test sets, and a cell for each result, as a JSON value.

    Models of the same name in several directories are told apart by the directory.
    """
    labels = label_models(outputs)
    models = [*labels.values()]
    datasets = [*dict.fromkeys(r.dataset for output in outputs for r in output.results)]
    cells = [
        _cell(result, models.index(labels[i, result.model]), datasets.index(result.dataset))
        for i, output in enumerate(outputs)
        for result in output.results
    ]
    titles = _ACCURACIES | EXTRA_SCORES | dict(SINGLE_SCORES.values())
    used = {key for cell in cells for key in cell["scores"]}
    return {
        "models": [_model(outputs[i], i, name, labels) for i, name in labels],
        "datasets": [_dataset(name, datasets) for name in datasets],
        "cells": cells,
        "metrics": {
            key: {
                "title": title,
                "lowerIsBetter": key in _LOWER_IS_BETTER,
                "isFraction": key not in _NOT_FRACTIONS,
            }
            for key, title in titles.items()
            if key in used
        },
    }


def label_models(outputs: Sequence[Evaluation]) -> dict[tuple[int, str], str]:
    """Returns (index of the output, model) -> the name on the page."""
    keys = dict.fromkeys((i, r.model) for i, output in enumerate(outputs) for r in output.results)
    names = [name for _, name in keys]
    return {
        (i, name): f"{name} ({outputs[i].directory})" if names.count(name) > 1 else name
        for i, name in keys
    }


def _model(
    output: Evaluation, index: int, name: str, labels: dict[tuple[int, str], str]
) -> dict[str, Any]:
    results = [result for result in output.results if result.model == name]
    counterpart = bn_counterpart(name) or ""
    bn = labels.get((index, counterpart), counterpart)  # of the same directory, or the only one
    models = [*labels.values()]
    architecture = results[0].architecture
    return {
        "name": labels[index, name],
        "architecture": architecture,
        "norm": results[0].norm,
        "params": results[0].num_params,
        "macs": next((result.macs for result in results if result.macs), None),
        "rate": output.rates.get(name, output.rates.get(architecture)),
        "bn": models.index(bn) if bn in models else None,
    }


def _dataset(name: str, datasets: list[str]) -> dict[str, Any]:
    clean = get_test_set(name).clean
    return {
        "name": name,
        "main": SINGLE_SCORES.get(name, ("top1",))[0],
        "clean": datasets.index(clean) if clean in datasets else None,
    }


def _cell(result: Result, model: int, dataset: int) -> dict[str, Any]:
    accuracies = [key for key in _ACCURACIES if key in result.scores]
    # ImageNet-C has the same images many times, so its images are no independent sample.
    is_sample = get_test_set(result.dataset).metric != "corruption"
    published = RELEASED[result.model].results if result.model in RELEASED else {}
    return {
        "model": model,
        "dataset": dataset,
        "n": result.n,
        "expected": result.expected,
        "scores": result.scores,
        "intervals": {
            key: wilson_interval(result.scores[key], result.n) for key in accuracies if is_sample
        },
        "published": dict(zip(_ACCURACIES, published.get(result.dataset, ()), strict=False)),
        "settings": {
            field.name: getattr(result, field.name)
            for field in dataclasses.fields(result)
            if field.name in ("image_size", "crop_pct", "interpolation", "dtype", "weights_digest")
        },
    }
