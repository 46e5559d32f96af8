"""Writes report.html."""

from collections.abc import Sequence

from etils import epath

from an_jax.files import replacing
from an_jax.report.page import build_page
from an_jax.report.results import collect_results, read_output

_SCRIPTS = ("table.js", "results.js", "report.js")


def write_report(directories: Sequence[epath.Path], path: epath.Path) -> None:
    """Writes the page about the results of output directories of evaluate.py.

    Args:
        directories: have results.json each.
        path: the page.

    Raises:
        InputError: there are no results, a file is damaged, or the page cannot be written.
    """
    outputs = [read_output(directory) for directory in directories]
    data = {"results": collect_results(outputs)}
    page = build_page(" and ".join(d.name for d in directories), data, _SCRIPTS)
    with replacing(path) as temporary:
        temporary.write_bytes(page.encode())
