"""Formats results as timm's CSV files: same names, columns and formats.

Fractions are in percent. rank_diff is the difference of a model's row numbers in the two files.
timm computes it before sorting, so its values differ a little if models tie.
"""

import csv
import io
from collections import defaultdict

from an_jax.data.sets.test_sets import TEST_SETS, get_test_set
from an_jax.evaluation.result import Result
from an_jax.zoo.released import RELEASED

METADATA = "model_metadata.csv"

Row = dict[str, str]  # column -> cell


def csv_files(results: list[Result]) -> dict[str, str]:
    """Formats one file for each test set, and model_metadata.csv.

    Args:
        results: of any models on any of the test sets.

    Returns:
        File name -> text.
    """
    by_dataset = defaultdict(list)
    for result in results:
        by_dataset[result.dataset].append(result)
    files = {METADATA: _text(_metadata_rows(results))}
    for dataset, group in list(by_dataset.items()):
        test_set = get_test_set(dataset)
        clean = test_set.clean
        if dataset == "imagenet-c":
            rows = _corruption_rows(group)
        elif dataset == "imagenet-p":
            rows = _perturbation_rows(group)
        elif clean is None:
            rows = [_accuracies(result) | _aupr(result) for result in _ranked(group)]
        else:
            rows = _shift_rows(_ranked(group), _ranked(by_dataset[clean]))
        files[test_set.csv] = _text(rows)
    return files


def _ranked(results: list[Result]) -> list[Result]:
    return sorted(results, key=lambda r: (-r.scores["top1"], -r.scores["top5"], r.model))


def _accuracies(result: Result) -> Row:
    top1, top5 = result.scores["top1"], result.scores["top5"]
    return {
        "model": result.model,
        "img_size": str(result.image_size),
        "top1": _percent(top1),
        "top1_err": _percent(1 - top1),
        "top5": _percent(top5),
        "top5_err": _percent(1 - top5),
        "param_count": f"{result.num_params / 1e6:,.2f}",
        "crop_pct": f"{result.crop_pct:.3f}",
        "interpolation": result.interpolation,
    }


def _aupr(result: Result) -> Row:
    """The additional column of imagenet-o."""
    return {"aupr": _percent(result.scores["aupr"])} if "aupr" in result.scores else {}


def _shift_rows(ranked: list[Result], ranked_clean: list[Result]) -> list[Row]:
    clean_ranks = {result.model: rank for rank, result in enumerate(ranked_clean)}
    rows = []
    for rank, result in enumerate(ranked):
        differences = dict.fromkeys(("top1_diff", "top5_diff", "rank_diff"), "")
        if result.model in clean_ranks:
            clean_rank = clean_ranks[result.model]
            for key in ("top1", "top5"):
                change = 100 * (result.scores[key] - ranked_clean[clean_rank].scores[key])
                differences[f"{key}_diff"] = f"{change:+z.3f}"
            rise = clean_rank - rank
            differences["rank_diff"] = f"{rise:+d}" if rise else "0"
        rows.append(_accuracies(result) | differences)
    return rows


def _corruption_rows(results: list[Result]) -> list[Row]:
    return [
        {
            "model": result.model,
            "mce": _percent(result.scores["mce"]),
            "relative_mce": _percent(result.scores.get("relative_mce")),
            **{
                corruption: _percent(sum(errors) / len(errors))
                for corruption, errors in result.scores["errors"].items()
            },
        }
        for result in sorted(results, key=lambda r: (r.scores["mce"], r.model))
    ]


def _perturbation_rows(results: list[Result]) -> list[Row]:
    return [
        {
            "model": result.model,
            "mean_flip_probability": _percent(result.scores["mean_flip_probability"]),
            "mean_top5_distance": f"{result.scores['mean_top5_distance']:.3f}",
            **{name: _percent(p) for name, p in result.scores["flip_probability"].items()},
        }
        for result in sorted(results, key=lambda r: (r.scores["mean_flip_probability"], r.model))
    ]


def _metadata_rows(results: list[Result]) -> list[Row]:
    # All known test sets but the digits need a model with ImageNet's classes.
    datasets = {name for name in TEST_SETS if not name.startswith("digits")}
    in1k = {result.model for result in results if result.dataset in datasets}
    rows = {
        result.model: {
            "model": result.model,
            "pretrain": "in1k" if result.model in in1k else "",
            "recipe": RELEASED[result.model].recipe.name if result.model in RELEASED else "",
            "norm": result.norm,
            "architecture": result.architecture,
        }
        for result in results
    }
    return [rows[model] for model in sorted(rows)]


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.3f}"


def _text(rows: list[Row]) -> str:
    columns = dict.fromkeys(column for row in rows for column in row)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
