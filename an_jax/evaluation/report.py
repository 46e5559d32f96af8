"""Writes results as Markdown tables, JSON, timm's CSV files and pictures."""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from an_jax.data.sets.test_sets import TEST_SETS
from an_jax.evaluation import plots, timm_csv
from an_jax.evaluation.result import Result
from an_jax.files import check_destination, replacing

# Test sets with one number in the table instead of two accuracies -> its key and its name.
_SINGLE_SCORES = {
    "imagenet-c": ("mce", "mCE"),
    "imagenet-p": ("mean_flip_probability", "mean flip probability"),
}
_EXTRA_SCORES = {
    "unrestricted_top1": "unrestricted top-1",
    "rms_calibration_error": "RMS calibration error",
    "aurra": "AURRA",
    "aupr": "AUPR",
    "relative_mce": "relative mCE",
    "mean_top5_distance": "mean top-5 distance",
    "mfr": "mFR",
    "mt5d": "mT5D",
}


def write_report(results: list[Result], output_dir: Path) -> str:
    """Writes results.md, results.json, the CSV files and the pictures.

    Returns:
        The text of results.md.

    Raises:
        InputError: a file cannot be written.
    """
    text = markdown(results)
    entries = [_flatten(result) for result in results]
    files = {
        "results.md": text,
        "results.json": json.dumps(entries, indent=2) + "\n",
        **timm_csv.csv_files(results),
    }
    for name, content in files.items():
        with _open_for_writing(output_dir / name) as path:
            path.write_bytes(content.encode())
    for name, figure in plots.figures(results).items():
        with _open_for_writing(output_dir / name) as path:
            figure.savefig(path, format="png", dpi=150)
    return text


@contextlib.contextmanager
def _open_for_writing(path: Path) -> Iterator[Path]:
    check_destination(path, overwrite=True)  # never replaces a directory
    with replacing(path) as temporary:
        yield temporary


def _flatten(result: Result) -> dict:
    entry = dataclasses.asdict(result)
    return entry | entry.pop("scores")


def markdown(results: list[Result]) -> str:
    """Formats a table with a row per model and a column per test set, and one of other scores."""
    datasets = _unique(r.dataset for r in results)
    by_cell = {(r.model, r.dataset): r for r in results}
    heads = [f"{d} ({_SINGLE_SCORES[d][1]})" if d in _SINGLE_SCORES else d for d in datasets]
    rows = []
    for model in _unique(r.model for r in results):
        row = [by_cell.get((model, dataset)) for dataset in datasets]
        num_params = next(r.num_params for r in row if r)
        rows.append([model, f"{num_params / 1e6:.3f}", *map(_cell, row)])
    alignments = ["---", "---:"] + [":---:"] * len(datasets)
    text = table(["Model", "Params (M)", *heads], alignments, rows)
    if any(d not in _SINGLE_SCORES for d in datasets):
        text += "\nEach pair is (top-1, top-5) accuracy.\n"
    for dataset, key, n, expected in _unique(count for r in results for count in _counts(r)):
        if n != expected:
            text += f"\n{dataset}: {key} = {n} of {expected} images.\n"
    return text + _extra_scores(results)


def _counts(result: Result) -> Iterator[tuple[str, str, int, int]]:
    """Yields test set, name, value and expected value of each number of images."""
    yield result.dataset, "n", result.n, result.expected
    for key, expected in TEST_SETS[result.dataset].other_counts.items():
        if key in result.scores:
            yield result.dataset, key, result.scores[key], expected


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    if result.dataset in _SINGLE_SCORES:
        key, _ = _SINGLE_SCORES[result.dataset]
        cell = f"{result.scores[key]:.3f}"
    else:
        cell = f"({result.scores['top1']:.3f}, {result.scores['top5']:.3f})"
    return f"{cell} n={result.n}" if result.is_partial else cell


def _extra_scores(results: list[Result]) -> str:
    scored = [r for r in results if _EXTRA_SCORES.keys() & r.scores.keys()]
    if not scored:
        return ""
    keys = [key for key in _EXTRA_SCORES if any(key in r.scores for r in scored)]
    rows = [
        [r.model, r.dataset, *(f"{r.scores[k]:.3f}" if k in r.scores else "" for k in keys)]
        for r in scored
    ]
    heads = ["Model", "Test set", *(_EXTRA_SCORES[key] for key in keys)]
    return "\n" + table(heads, ["---", "---"] + ["---:"] * len(keys), rows)


def table(heads: list[str], alignments: list[str], rows: list[list[str]]) -> str:
    """Formats a Markdown table; `alignments` are the cells of the line below the heads."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (heads, alignments, *rows))


def _unique(values: Iterable) -> list:
    return list(dict.fromkeys(values))
