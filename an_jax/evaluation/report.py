"""Results as people and programs want them: tables, JSON, timm's CSV files, pictures."""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from an_jax.evaluation import plots, timm_csv
from an_jax.evaluation.result import Result
from an_jax.files import check_destination, replacing

# Test sets that one number stands for instead of a pair of accuracies: its key and its name.
_SINGLE = {
    "imagenet-c": ("mce", "mCE"),
    "imagenet-p": ("mean_flip_probability", "mean flip probability"),
}
_EXTRA = {
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
    entries = [_flat(result) for result in results]
    files = {
        "results.md": text,
        "results.json": json.dumps(entries, indent=2) + "\n",
        **timm_csv.csv_files(results),
    }
    for name, content in files.items():
        with _writing(output_dir / name) as path:
            path.write_text(content, newline="\n")
    for name, figure in plots.figures(results).items():
        with _writing(output_dir / name) as path:
            figure.savefig(path, format="png", dpi=150)
    return text


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    check_destination(path, overwrite=True)  # a directory of this name is not ours
    with replacing(path) as temporary:
        yield temporary


def _flat(result: Result) -> dict:
    entry = dataclasses.asdict(result)
    return entry | entry.pop("scores")


def markdown(results: list[Result]) -> str:
    """The published form: a row a model, a column a test set; below it the other scores."""
    datasets = _unique(r.dataset for r in results)
    by_cell = {(r.model, r.dataset): r for r in results}
    heads = [f"{d} ({_SINGLE[d][1]})" if d in _SINGLE else d for d in datasets]
    rows = []
    for model in _unique(r.model for r in results):
        of_model = [by_cell.get((model, dataset)) for dataset in datasets]
        num_params = next(r.num_params for r in of_model if r)
        rows.append([model, f"{num_params / 1e6:.3f}", *map(_cell, of_model)])
    alignments = ["---", "---:"] + [":---:"] * len(datasets)
    text = table(["Model", "Params (M)", *heads], alignments, rows)
    if any(d not in _SINGLE for d in datasets):
        text += "\nEach pair is (top-1, top-5) accuracy.\n"
    for dataset, n, expected in _unique((r.dataset, r.n, r.expected) for r in results):
        if n != expected:
            text += f"\n{dataset}: n = {n} of {expected} images.\n"
    return text + _extra_scores(results)


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    if result.dataset in _SINGLE:
        cell = f"{result.scores[_SINGLE[result.dataset][0]]:.3f}"
    else:
        cell = f"({result.scores['top1']:.3f}, {result.scores['top5']:.3f})"
    return f"{cell} n={result.n}" if result.is_partial else cell


def _extra_scores(results: list[Result]) -> str:
    with_any = [r for r in results if _EXTRA.keys() & r.scores.keys()]
    if not with_any:
        return ""
    keys = [key for key in _EXTRA if any(key in r.scores for r in with_any)]
    rows = [
        [r.model, r.dataset, *(f"{r.scores[k]:.3f}" if k in r.scores else "" for k in keys)]
        for r in with_any
    ]
    heads = ["Model", "Test set", *(_EXTRA[key] for key in keys)]
    return "\n" + table(heads, ["---", "---"] + ["---:"] * len(keys), rows)


def table(heads: list[str], alignments: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; `alignments` are the cells of the line below the heads."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (heads, alignments, *rows))


def _unique(values: Iterable) -> list:
    return list(dict.fromkeys(values))
