"""The state of a set in a data directory: counts, status and problems."""

import dataclasses
from collections.abc import Sequence

_KINDS = {"imagenet-c": "corruptions x 5 severities", "imagenet-p": "perturbations"}
_MAX_PROBLEMS = 3  # printed of a group of image sets


@dataclasses.dataclass(frozen=True)
class Count:
    """A count and its expected value; `actual` is None if unknown."""

    actual: int | None
    expected: int
    unit: str

    def __str__(self) -> str:
        actual = "-" if self.actual is None else f"{self.actual:,}"
        return f"{actual:>10} of {self.expected:,} {self.unit}"


@dataclasses.dataclass(frozen=True)
class Finding:
    """The state of a set in a data directory: counts, status and problems.

    Attributes:
        name: name of the set.
        status: "ok", "partial" (something is missing), "missing" (everything is), "wrong", or
            "error" (it cannot be read, which may pass).
        counts: images and classes of an image set.
        where: the folder, or the data set that tfds prepared.
        problems: one line for each problem.
    """

    name: str
    status: str
    counts: tuple[Count, Count]
    where: str = "-"
    problems: Sequence[str] = ()

    def __str__(self) -> str:
        counts = "".join(str(count).ljust(34) for count in self.counts)
        line = f"{self.name:<30}{self.status:<9}{counts}{self.where}"
        return "\n    ".join([line, *self.problems])


def summarize(group: str, findings: Sequence[Finding]) -> Finding:
    """Combines the findings of image sets named group/kind or group/kind/severity."""
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.name.split("/")[1], []).append(finding)
    statuses_of = {kind: {f.status for f in members} for kind, members in by_kind.items()}
    missing = [kind for kind, statuses in statuses_of.items() if statuses == {"missing"}]
    complete = [kind for kind, statuses in statuses_of.items() if statuses == {"ok"}]

    present = [f for kind, members in by_kind.items() if kind not in missing for f in members]
    present.sort(key=lambda finding: finding.status not in ("wrong", "error"))
    problems = [f"{f.name}: {problem}" for f in present for problem in f.problems]
    if len(problems) > _MAX_PROBLEMS:
        num_more = len(problems) - _MAX_PROBLEMS
        problems = [*problems[:_MAX_PROBLEMS], f"... and {num_more} more such"]
    if missing:
        problems.append(f"missing: {', '.join(missing)}")

    status = _combine({finding.status for finding in findings})
    images, classes = zip(*(finding.counts for finding in findings), strict=True)
    fewest_classes = min((count.actual for count in classes if count.actual), default=None)
    counts = (
        Count(sum(c.actual for c in images), sum(c.expected for c in images), "images"),
        Count(fewest_classes, classes[0].expected, "classes"),
    )
    where = f"{len(complete)} of {len(by_kind)} {_KINDS.get(group, 'parts')}"
    return Finding(group, status, counts, where, problems)


def _combine(statuses: set[str]) -> str:
    for status in ("wrong", "error"):
        if status in statuses:
            return status
    return statuses.pop() if len(statuses) == 1 else "partial"
