"""Writes report.html: the results of one or several output directories of evaluate.py."""

import argparse
import functools
import sys
from collections.abc import Sequence

from an_jax.buckets import check_bucket
from an_jax.errors import exit_status
from an_jax.evaluation.output import REPORT
from an_jax.files import absolute, check_destination
from an_jax.report.page import why_not_page
from an_jax.report.write import write_report


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m an_jax.report", description=__doc__)
    parser.add_argument(
        "outputs",
        nargs="+",
        metavar="OUT",
        help="--output_dir of one or more evaluations; may be gs://",
    )
    parser.add_argument(
        "--output", metavar="HTML", help=f"page to write (default: {REPORT} in the first OUT)"
    )
    return exit_status(functools.partial(run, parser.parse_args(argv)))


def run(args: argparse.Namespace) -> None:
    """Writes the page.

    Raises:
        InputError: there are no results, a file is damaged, or the page cannot be written.
    """
    directories = [*map(absolute, args.outputs)]
    output = absolute(args.output) if args.output else directories[0] / REPORT
    for path in (*directories, output):
        check_bucket(path)
    check_destination(output, overwrite=True, why_foreign=why_not_page)
    write_report(directories, output)
    print(f"written to {args.output or output}")


if __name__ == "__main__":
    sys.exit(main())
