"""Writes report.html."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from an_jax.report.attention import read_attention
from an_jax.report.page import build_page, write_page
from an_jax.report.predictions import collect_predictions
from an_jax.report.results import collect_results, label_models, read_evaluation

_SCRIPTS = ("table.js", "results.js", "attention.js", "predictions.js", "errors.js", "report.js")


def write_report(directories: Sequence[epath.Path], path: epath.Path) -> None:
    """Writes the page about the results of output directories of evaluate.py.

    Args:
        directories: have results.json each.
        path: the page.

    Raises:
        InputError: there are no results, a file is damaged, or the page cannot be written.
    """
    outputs = [read_evaluation(directory) for directory in dict.fromkeys(directories)]
    errors: list[dict[str, Any]] = []
    attention: list[dict[str, Any]] = []
    blobs: dict[str, bytes] = {}
    labels = label_models(outputs)
    for i, output in enumerate(outputs):
        digests = {result.model: result.weights_digest for result in output.results}
        for analysis in read_attention(output.directory):
            name, digest = analysis["model"], analysis["weights_digest"]
            is_current = digests.get(name, digest) == digest
            label = labels.get((i, name), name)
            attention.append(analysis | {"model": label, "is_current": is_current})
        sets, contents = collect_predictions(output.directory, output.results, path.parent)
        if len(outputs) > 1:
            sets = [data | {"name": f"{data['name']} ({output.directory})"} for data in sets]
        errors += sets
        blobs |= contents
    data = {"results": collect_results(outputs), "attention": attention, "errors": errors}
    title = " and ".join(output.directory.name for output in outputs)
    write_page(build_page(title, data, _SCRIPTS, blobs), path)
