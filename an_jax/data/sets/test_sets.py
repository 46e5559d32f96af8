"""The table of test sets: each is a column of the results, computed from image sets."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence

from an_jax.data.sets import digits
from an_jax.data.sets.image_sets import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    IMAGE_SETS,
    PERTURBATIONS,
    SEVERITIES,
)
from an_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class TestSet:
    """One column of the results.

    Attributes:
        image_sets: keys of IMAGE_SETS; a model is run over each of them.
        num_images: images (frames, for videos) that top1 is of if all are there.
        metric: key of evaluation.scoring.METRICS.
        csv: name of the results file; timm's name if timm has the set.
        classes: subset of the classes; only the logits of these count. None for all.
        clean: the test set that this one is a shifted version of.
        optional_sets: image sets that are reported if they are there.
        other_counts: numbers of images, if all are there, of scores that are of other images than
            top1; the scores have them as "<score>_n".
    """

    image_sets: tuple[str, ...]
    num_images: int
    metric: str
    csv: str
    classes: str | None = None
    clean: str | None = None
    optional_sets: tuple[str, ...] = ()
    other_counts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.metric == "accuracy" and len(self.image_sets) != 1:
            raise ValueError(f"{self.csv}: 'accuracy' scores one image set, not {self.image_sets}")


def _accuracy(
    name: str, num_images: int, csv: str | None = None, clean: str | None = "imagenet-1k"
) -> TestSet:
    csv = csv or f"results-{name}.csv"
    return TestSet((name,), num_images, "accuracy", csv, clean=clean)


def _subset_accuracy(
    name: str, image_set: str, num_images: int, classes: str, clean: str | None = None
) -> TestSet:
    csv = f"results-{name}.csv"
    return TestSet((image_set,), num_images, "accuracy", csv, classes=classes, clean=clean)


def _corrupted_sets(corruptions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"imagenet-c/{c}/{severity}" for c in corruptions for severity in SEVERITIES)


_PERTURBED_SETS = tuple(f"imagenet-p/{perturbation}" for perturbation in PERTURBATIONS)

TEST_SETS: dict[str, TestSet] = {
    "imagenet-1k": _accuracy("imagenet-1k", 50_000, "results-imagenet.csv", clean=None),
    "imagenet-1k-reassessed": TestSet(
        ("imagenet-1k",), 46_837, "real", "results-imagenet-real.csv", clean="imagenet-1k"
    ),
    "imagenetv2-matched-frequency": _accuracy("imagenetv2-matched-frequency", 10_000),
    "imagenetv2-threshold0.7": _accuracy("imagenetv2-threshold0.7", 10_000),
    "imagenetv2-topimages": _accuracy("imagenetv2-topimages", 10_000),
    "imagenet-sketch": _accuracy("imagenet-sketch", 50_889, "results-sketch.csv"),
    "imagenet-a": _subset_accuracy(
        "imagenet-a", "imagenet-a", 7_500, "imagenet-a", clean="imagenet-a-clean"
    ),
    "imagenet-o": TestSet(
        ("imagenet-o", "imagenet-1k"),  # the latter has the in-distribution images
        2_000,
        "out_of_distribution",
        "results-imagenet-o.csv",
        classes="imagenet-o",
        other_counts={"aupr_n": 2_000 + 10_000},
    ),
    "imagenet-a-clean": _subset_accuracy("imagenet-a-clean", "imagenet-1k", 10_000, "imagenet-a"),
    "imagenet-r": _subset_accuracy(
        "imagenet-r", "imagenet-r", 30_000, "imagenet-r", clean="imagenet-r-clean"
    ),
    "imagenet-r-clean": _subset_accuracy("imagenet-r-clean", "imagenet-1k", 10_000, "imagenet-r"),
    "imagenet-c": TestSet(
        ("imagenet-1k", *_corrupted_sets(CORRUPTIONS)),  # relative mCE needs the clean error
        num_images=50_000 * len(CORRUPTIONS) * len(SEVERITIES),
        metric="corruption",
        csv="results-imagenet-c.csv",
        clean="imagenet-1k",
        optional_sets=_corrupted_sets(EXTRA_CORRUPTIONS),
        other_counts={"relative_mce_n": 50_000 * (1 + len(CORRUPTIONS) * len(SEVERITIES))},
    ),
    "imagenet-p": TestSet(
        _PERTURBED_SETS,
        num_images=sum(IMAGE_SETS[name].num_images for name in _PERTURBED_SETS),
        metric="perturbation",
        csv="results-imagenet-p.csv",
    ),
    "digits": _accuracy("digits", digits.NUM_TEST, clean=None),
    **{
        f"digits-{shift}": _accuracy(f"digits-{shift}", digits.NUM_TEST, clean="digits")
        for shift in digits.SHIFTS
    },
}
# The columns of the published table, in its order.
PUBLISHED = (
    "imagenet-1k",
    "imagenet-1k-reassessed",
    "imagenetv2-matched-frequency",
    "imagenetv2-threshold0.7",
    "imagenetv2-topimages",
    "imagenet-sketch",
    "imagenet-a",
    "imagenet-o",
)


def own_test_set(name: str, num_images: int = 0) -> TestSet:
    """Returns the row of custom class folders.

    Args:
        name: column of the results.
        num_images: number of images in the folders.

    Raises:
        InputError: the name is not a file name, or is that of another test set or of its results.
    """
    own = _accuracy(name, num_images, clean=None)
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(
            f"{name!r} is not a test set, and cannot name one: use letters, digits, '_', '-', '.'"
        )
    taken = {"published", "all", *TEST_SETS}
    if name in taken or own.csv in {test_set.csv for test_set in TEST_SETS.values()}:
        raise InputError(f"{name!r} is taken by another test set: choose another name")
    return own


def get_test_set(name: str) -> TestSet:
    """Returns a row of TEST_SETS, or that of custom class folders.

    Raises:
        InputError: the name can be neither's.
    """
    return TEST_SETS.get(name) or own_test_set(name)


def expand_names(names: str) -> list[str]:
    """Returns the test sets of a list with commas, in its order and without repetition.

    Args:
        names: names of test sets, "published" (eight columns) or "all" (of ImageNet).

    Raises:
        InputError: a name is unknown; the message suggests the nearest.
    """
    groups: dict[str, Sequence[str]] = {
        "published": PUBLISHED,
        "all": [name for name in TEST_SETS if name.startswith("imagenet")],
    }
    expanded: list[str] = []
    for name in names.split(","):
        if name not in TEST_SETS and name not in groups:
            nearest = difflib.get_close_matches(name, TEST_SETS, n=1, cutoff=0.0)[0]
            raise InputError(
                f"unknown test set {name!r}; the nearest is {nearest}. "
                f"There are {', '.join([*TEST_SETS, *groups])}"
            )
        expanded += groups.get(name, [name])
    return list(dict.fromkeys(expanded))
