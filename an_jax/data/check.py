"""Lists which test sets a data directory holds, what is wrong with them, and how to get the rest.

    python -m an_jax.data.check --data_dir DATA [--datasets published|all|NAME,...]

Prints one line per set: ok, partial, missing, wrong, or error if it cannot be read. Folders are
listed; no image is read and nothing is downloaded. The exit status is 0 if all sets are ok,
otherwise 1.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterator, Sequence

from an_jax.data.findings import Finding, summarize
from an_jax.data.folders import check_data_directory
from an_jax.data.inventory import inspect_image_set, inspect_real_labels
from an_jax.data.sets.downloads import download_instructions
from an_jax.data.sets.test_sets import TEST_SETS, expand_names
from an_jax.errors import exit_status


def check(test_sets: Sequence[str], data_dir: str) -> Iterator[Finding]:
    """Inspects everything that the test sets need; ImageNet-C and -P give one finding each."""
    names = dict.fromkeys(name for test_set in test_sets for name in TEST_SETS[test_set].image_sets)
    for group, members in itertools.groupby(names, lambda name: name.split("/")[0]):
        findings = [inspect_image_set(member, data_dir) for member in members]
        yield findings[0] if findings[0].name == group else summarize(group, findings)
    if any(TEST_SETS[test_set].metric == "real" for test_set in test_sets):
        yield inspect_real_labels(data_dir)


def report(test_sets: Sequence[str], data_dir: str) -> int:
    """Prints the findings and how to fix them; returns 0 if all sets are ok, otherwise 1.

    Raises:
        InputError: the directory does not exist or cannot be read.
    """
    check_data_directory(data_dir)
    status = 0
    for finding in check(test_sets, data_dir):
        print(finding, flush=True)
        if finding.status != "ok":
            status = 1
        if finding.status in ("ok", "error"):  # the problem says what to do about an error
            continue
        if finding.status != "missing":  # the defective files would be read first again
            print("    fix it, or remove it and get it again:")
        for line in download_instructions(finding.name, data_dir):
            print(f"    {line}")
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m an_jax.data.check",
        description="Reports which test sets are complete, what is wrong with the others, and how "
        "to get them.",
    )
    parser.add_argument(
        "--data_dir",
        required=True,
        type=os.path.expanduser,
        help="directory of the test sets; may be gs://",
    )
    parser.add_argument(
        "--datasets",
        default="all",
        help='names separated by commas, "published" (eight sets) or "all" (default: %(default)s)',
    )
    args = parser.parse_args(argv)
    return exit_status(lambda: report(expand_names(args.datasets), args.data_dir))


if __name__ == "__main__":
    sys.exit(main())
