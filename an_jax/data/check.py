"""Says which test sets lie in a data directory, whether they are whole, and how to get them.

    python -m an_jax.data.check --data_dir DATA [--datasets published|all|NAME,...]

One line a set: ok, partial, missing or wrong. Folders are listed; no image is read, nothing is
downloaded. The exit status is 0 if all is ok, otherwise 1.
"""

import argparse
import dataclasses
import itertools
import posixpath
import sys
from collections.abc import Iterator, Sequence

from an_jax.data.sets.class_index import SUBSETS, imagenet_wnids, subset
from an_jax.data.sets.how_to_get import how_to_get
from an_jax.data.sets.image_sets import IMAGE_SETS, open_image_set
from an_jax.data.sets.real_labels import NUM_IMAGES, read_real_labels
from an_jax.data.sets.test_sets import TEST_SETS, expand_names
from an_jax.data.sources import ImageList, TfdsSplit, is_directory, list_directory, open_tfds
from an_jax.data.tf_on_cpu import tf
from an_jax.errors import InputError, NotThereError, exit_status

_ERRORS = (InputError, tf.errors.OpError)  # the latter: a folder or file that cannot be read
_GROUPS = {"imagenet-c": "corruptions x 5 severities", "imagenet-p": "perturbations"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """What there is of a set.

    Attributes:
        name: of the set.
        status: "ok", "partial" (something is missing), "missing" (all is) or "wrong".
        expected: how many images and classes the whole set has.
        found: how many there are; None where that is not known.
        where: the folder, or the data set that tfds prepared.
        problems: what is the matter, in words.
        units: what is counted.
    """

    name: str
    status: str
    expected: tuple[int, int]
    found: tuple[int, int | None] = (0, None)
    where: str = "-"
    problems: Sequence[str] = ()
    units: tuple[str, str] = ("images", "classes")

    def __str__(self) -> str:
        line = f"{self.name:<30}{self.status:<9}"
        for have, want, unit in zip(self.found, self.expected, self.units, strict=True):
            line += f"{'-' if have is None else format(have, ','):>10} of {want:,} {unit}".ljust(34)
        return "\n    ".join([line + self.where, *self.problems])


def check_image_set(name: str, data_dir: str) -> Finding:
    """Opens one of IMAGE_SETS and counts."""
    expected = (IMAGE_SETS[name].num_images, len(_labels(name)))
    try:
        source = open_image_set(name, data_dir, allow_partial=True)
    except _ERRORS as error:
        status = "missing" if isinstance(error, NotThereError) else "wrong"
        return Finding(name, status, expected, problems=[f"{error}{_likeness(name, data_dir)}"])
    surplus = len(source) - expected[0]
    what = "images too many" if surplus > 0 else "images missing"
    problems = [f"{what}: {abs(surplus):,}"] if surplus else []
    files = getattr(source, "videos", source)
    is_v2 = name.startswith("imagenetv2")
    if isinstance(files, TfdsSplit):
        classes, where, of_classes = None, f"tfds {files.builder.info.full_name}", []
    else:
        classes, of_classes = len({*files.labels.tolist()}), _class_problems(name, files)
        where = posixpath.relpath(files.root, data_dir) if files.root else "in memory"
        where += " (a folder's number is its label: 0, 1, 10, ... need no renaming)" * is_v2
    problems += of_classes
    is_wrong = surplus > 0 or (is_v2 and of_classes)
    status = "wrong" if is_wrong else "partial" if problems else "ok"
    return Finding(name, status, expected, (len(source), classes), where, problems)


def _labels(name: str) -> Sequence[int]:
    return subset(name) if name in SUBSETS else range(IMAGE_SETS[name].num_classes)


def _class_problems(name: str, files: ImageList) -> list[str]:
    present, folder_of, problems = {*files.labels.tolist()}, imagenet_wnids(), []
    if name.startswith("imagenetv2"):
        folders = {filename.split("/")[0] for filename in files.filenames}
        digits = min(map(len, folders))  # 1, or 4 where the folders were renamed
        folder_of = [f"{label:0{digits}}" for label in range(1000)]
        if len(folders) > len(present):
            problems.append(f"{len(folders)} folders: some are there twice, as 1 and as 0001")
    lacking = [folder_of[label] for label in _labels(name) if label not in present]
    if lacking:
        there = set(list_directory(files.root))
        some = [folder + " (empty)" * (folder in there) for folder in lacking[:3]]
        some += ["..."] * (len(lacking) > 3)
        problems.append(f"classes without images: {len(lacking)} ({', '.join(some)})")
    return problems


def _likeness(name: str, data_dir: str) -> str:
    """Whose the folders seem to be that could not be opened as those of a subset."""
    places = [posixpath.join(data_dir, place) for place in (f"{name}/{name}", name)]
    place = next(filter(is_directory, places), None)
    if name not in SUBSETS or place is None:
        return ""
    folders = set(list_directory(place))
    labels = {label for label, wnid in enumerate(imagenet_wnids()) if wnid in folders}
    alike = [other for other in SUBSETS if labels and labels <= {*subset(other)}]
    return f"; it looks like {alike[0]}" if alike and name not in alike else ""


def check_group(name: str, findings: Sequence[Finding]) -> Finding:
    """The image sets of ImageNet-C or ImageNet-P as one."""
    kinds: dict[str, set[str]] = {}  # corruption or perturbation -> status of its image sets
    for finding in findings:
        kinds.setdefault(finding.name.split("/")[1], set()).add(finding.status)
    absent = [kind for kind, statuses in kinds.items() if statuses == {"missing"}]
    problems = [
        f"{finding.name}: {problem}"
        for finding in sorted(findings, key=lambda finding: finding.status != "wrong")
        if finding.name.split("/")[1] not in absent
        for problem in finding.problems
    ]
    if len(problems) > 3:
        problems[3:] = [f"... and {len(problems) - 3} more such"]
    if absent:
        problems.append(f"missing: {', '.join(absent)}")
    statuses = set().union(*kinds.values())
    status = "wrong" if "wrong" in statuses else "partial" if len(statuses) > 1 else min(statuses)
    expected = (sum(f.expected[0] for f in findings), findings[0].expected[1])
    classes = min((f.found[1] for f in findings if f.found[1]), default=None)
    found = (sum(f.found[0] for f in findings), classes)
    where = f"{list(kinds.values()).count({'ok'})} of {len(kinds)} {_GROUPS[name]}"
    return Finding(name, status, expected, found, where, problems)


def check_real_labels(data_dir: str) -> Finding:
    """Looks for ReaL's labels: real.json, or what tfds prepared of them."""
    expected = (NUM_IMAGES, TEST_SETS["imagenet-1k-reassessed"].num_images)
    where, units = "imagenet-1k/real.json", ("entries", "with labels")
    is_there = tf.io.gfile.exists(posixpath.join(data_dir, where))
    try:
        prepared = None if is_there else open_tfds("imagenet2012_real", "validation", data_dir)
        if prepared:
            found, where = (len(prepared), None), f"tfds {prepared.builder.info.full_name}"
        else:
            labels = read_real_labels(data_dir)
            found = (len(labels), sum(map(bool, labels)))
    except _ERRORS as error:
        status = "wrong" if is_there else "missing"
        return Finding("real.json", status, expected, problems=[str(error)], units=units)
    problems = []
    if found not in (expected, (NUM_IMAGES, None)):
        problems = ["these are not the published labels"]
    status = "wrong" if problems else "ok"
    return Finding("real.json", status, expected, found, where, problems, units)


def check(test_sets: Sequence[str], data_dir: str) -> Iterator[Finding]:
    """Checks all that these test sets need, one thing after the other."""
    names = dict.fromkeys(name for test_set in test_sets for name in TEST_SETS[test_set].image_sets)
    for group, members in itertools.groupby(names, lambda name: name.split("/")[0]):
        findings = [check_image_set(member, data_dir) for member in members]
        yield check_group(group, findings) if group in _GROUPS else findings[0]
    if any(TEST_SETS[test_set].metric == "real" for test_set in test_sets):
        yield check_real_labels(data_dir)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="where the test sets lie; may be gs://")
    sets = 'names separated by commas, "published" (eight sets) or "all" (%(default)s)'
    parser.add_argument("--datasets", default="all", help=sets)
    args = parser.parse_args(argv)
    return exit_status(lambda: report(expand_names(args.datasets), args.data_dir))


def report(test_sets: Sequence[str], data_dir: str) -> int:
    """Prints what is found; returns 0 if all is ok, otherwise 1.

    Raises:
        InputError: there is no such directory.
    """
    if not is_directory(data_dir):
        raise InputError(f"no data directory {data_dir}")
    status = 0
    for finding in check(test_sets, data_dir):
        print(finding, flush=True)
        if finding.status != "ok":
            status = 1
            if finding.status != "missing":  # what is there would be found first again
                print("    mend it, or remove it and get it again:")
            for line in how_to_get(finding.name, data_dir):
                print(f"    {line}")
    return status


if __name__ == "__main__":
    sys.exit(main())
