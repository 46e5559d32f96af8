"""results.json: the results of all commands with the same output directory."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any

from etils import epath

from an_jax.data.sets.test_sets import get_test_set
from an_jax.errors import InputError
from an_jax.evaluation.result import Result

RESULTS = "results.json"
_FIELDS = [field.name for field in dataclasses.fields(Result) if field.name != "scores"]


def to_json(results: list[Result]) -> str:
    """Formats the results: one object each, with the scores beside the other fields."""
    entries = [dataclasses.asdict(result) for result in results]
    return json.dumps([entry | entry.pop("scores") for entry in entries], indent=2) + "\n"


def read_results(output_dir: epath.Path) -> list[Result]:
    """Reads OUT/results.json; returns an empty list if there is none.

    Raises:
        InputError: the file is damaged, or not one that `to_json` made.
    """
    path = output_dir / RESULTS
    if not path.exists():
        return []
    try:
        return [_read_entry(entry) for entry in json.loads(path.read_text())]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged, or not written by this version of evaluate.py ({error!r}); choose "
            "another --output_dir, or move the file away"
        ) from error


def _read_entry(entry: Mapping[str, Any]) -> Result:
    get_test_set(entry["dataset"])  # checks the name, since files are named by it
    fields = {name: entry[name] for name in _FIELDS if name in entry}
    return Result(**fields, scores={k: v for k, v in entry.items() if k not in fields})


def merge(earlier: list[Result], new: list[Result]) -> list[Result]:
    """Replaces the results of the same model on the same test set, and adds the others."""
    cells = {(result.model, result.dataset): result for result in [*earlier, *new]}
    return list(cells.values())


def check_comparable_rows(
    output_dir: epath.Path, model: str, datasets: Collection[str], described: Mapping[str, Any]
) -> None:
    """Checks that a model's new results fit its earlier ones, since they share a table's row.

    Args:
        output_dir: has the earlier results.
        model: name of the model.
        datasets: the test sets whose results are about to be replaced.
        described: fields of the new results: settings and weights.

    Raises:
        InputError: an earlier result that is kept has other settings or weights.
    """
    for result in read_results(output_dir):
        if result.model != model or result.dataset in datasets:
            continue
        changed = [name for name, value in described.items() if getattr(result, name) != value]
        if changed:
            raise InputError(
                f"{output_dir / RESULTS} has {model} on {result.dataset} with another "
                f"{', '.join(changed)}; evaluate it on {result.dataset} again in this command, or "
                "choose another --output_dir"
            )
