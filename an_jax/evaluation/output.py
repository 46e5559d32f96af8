"""Writes results as Markdown tables, JSON, timm's CSV files and pictures."""

import fnmatch
from collections.abc import Iterable, Iterator

from etils import epath

from an_jax.data.sets.test_sets import get_test_set
from an_jax.errors import InputError
from an_jax.evaluation import plots, timm_csv
from an_jax.evaluation.result import Result
from an_jax.evaluation.results_file import RESULTS, merge, read_results, to_json
from an_jax.files import replacing
from an_jax.report.page import why_not_page

TABLE = "results.md"
REPORT = "report.html"
# Test sets with one number in the table instead of two accuracies -> its key and its name.
SINGLE_SCORES = {
    "imagenet-c": ("mce", "mCE"),
    "imagenet-p": ("mean_flip_probability", "mean flip probability"),
}
EXTRA_SCORES = {
    "nll": "NLL",
    "rms_calibration_error": "RMS calibration error",
    "unrestricted_top1": "unrestricted top-1",
    "aurra": "AURRA",
    "aupr": "AUPR",
    "relative_mce": "relative mCE",
    "mean_top5_distance": "mean top-5 distance",
    "mfr": "mFR",
    "mt5d": "mT5D",
}


def check_output(output_dir: epath.Path) -> None:
    """Checks that the results in this directory would replace nothing but earlier results.

    Raises:
        InputError: a file of that name exists without results.json, or results.json is not one of
            this project.
    """
    present = {path.name for path in output_dir.iterdir()} if output_dir.is_dir() else set()
    tables = fnmatch.filter(present, "results-*.csv")
    names = {RESULTS, TABLE, REPORT, timm_csv.METADATA, *tables, *plots.FILES}
    for name in sorted(names & present):
        if RESULTS not in present:
            raise InputError(
                f"{output_dir} has a {name} but no {RESULTS}, so evaluate.py may not have written "
                "it; choose another --output_dir"
            )
        if (output_dir / name).is_dir():
            raise InputError(f"{output_dir / name} is a directory; choose another --output_dir")
    if REPORT in present and (reason := why_not_page(output_dir / REPORT)):
        raise InputError(f"{output_dir / REPORT} {reason}; choose another --output_dir")
    read_results(output_dir)


def write_output(results: list[Result], output_dir: epath.Path) -> str:
    """Writes results.json, results.md, the CSV files and the pictures.

    They show the results of earlier commands too. Those of the same model on the same test set are
    replaced.

    Args:
        results: of this command.
        output_dir: directory of the files.

    Returns:
        The text of results.md.

    Raises:
        InputError: a file cannot be written, or is not from an earlier evaluation.
    """
    check_output(output_dir)
    results = merge(read_results(output_dir), results)
    text = markdown(results)
    # results.json comes first: the other files follow from it.
    files = {RESULTS: to_json(results), TABLE: text, **timm_csv.csv_files(results)}
    for name, content in files.items():
        with replacing(output_dir / name) as path:
            path.write_bytes(content.encode())
    for name, figure in plots.figures(results).items():
        with replacing(output_dir / name) as path:
            figure.savefig(path, format="png", dpi=150)
    return text


def markdown(results: list[Result]) -> str:
    """Formats a table with a row per model and a column per test set, and one of other scores."""
    datasets = _unique(r.dataset for r in results)
    by_cell = {(r.model, r.dataset): r for r in results}
    heads = [f"{d} ({SINGLE_SCORES[d][1]})" if d in SINGLE_SCORES else d for d in datasets]
    rows = []
    for model in _unique(r.model for r in results):
        row = [by_cell.get((model, dataset)) for dataset in datasets]
        num_params = next(r.num_params for r in row if r)
        rows.append([model, f"{num_params / 1e6:.3f}", *map(_cell, row)])
    alignments = ["---", "---:"] + [":---:"] * len(datasets)
    text = table(["Model", "Params (M)", *heads], alignments, rows)
    if any(d not in SINGLE_SCORES for d in datasets):
        text += "\nEach pair is (top-1, top-5) accuracy.\n"
    for dataset, key, n, expected in _unique(count for r in results for count in _counts(r)):
        if n != expected:
            text += f"\n{dataset}: {key} = {n} of {expected} images.\n"
    return text + _extra_scores(results)


def _counts(result: Result) -> Iterator[tuple[str, str, int, int]]:
    """Yields test set, name, value and expected value of each number of images."""
    yield result.dataset, "n", result.n, result.expected
    for key, expected in get_test_set(result.dataset).other_counts.items():
        if key in result.scores:
            yield result.dataset, key, result.scores[key], expected


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    if result.dataset in SINGLE_SCORES:
        key, _ = SINGLE_SCORES[result.dataset]
        cell = f"{result.scores[key]:.3f}"
    else:
        cell = f"({result.scores['top1']:.3f}, {result.scores['top5']:.3f})"
    return f"{cell} n={result.n}" if result.is_partial else cell


def _extra_scores(results: list[Result]) -> str:
    scored = [r for r in results if EXTRA_SCORES.keys() & r.scores.keys()]
    if not scored:
        return ""
    keys = [key for key in EXTRA_SCORES if any(key in r.scores for r in scored)]
    rows = [
        [r.model, r.dataset, *(f"{r.scores[k]:.3f}" if k in r.scores else "" for k in keys)]
        for r in scored
    ]
    heads = ["Model", "Test set", *(EXTRA_SCORES[key] for key in keys)]
    return "\n" + table(heads, ["---", "---"] + ["---:"] * len(keys), rows)


def table(heads: list[str], alignments: list[str], rows: list[list[str]]) -> str:
    """Formats a Markdown table; `alignments` are the cells of the line below the heads."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (heads, alignments, *rows))


def _unique(values: Iterable) -> list:
    return list(dict.fromkeys(values))
