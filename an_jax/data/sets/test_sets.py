"""The test sets, a table: each is a column of the results, computed from one or more image sets."""

import dataclasses
import difflib

from an_jax.data.sets import digits
from an_jax.data.sets.image_sets import CORRUPTIONS, EXTRA_CORRUPTIONS, PERTURBATIONS, SEVERITIES
from an_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class TestSet:
    """One column of the results.

    Attributes:
        image_sets: names in IMAGE_SETS of what a model is run over for it.
        num_images: how many images (frames, for videos) count when all are there.
        metric: name in evaluation.scoring.METRICS of how it is scored.
        csv: name of the file of results, timm's where timm has the set.
        classes: the subset of classes whose logits alone count; None for all.
        clean: the test set of which this one is a shift.
        optional_sets: image sets that are reported where they are there.
    """

    image_sets: tuple[str, ...]
    num_images: int
    metric: str
    csv: str
    classes: str | None = None
    clean: str | None = None
    optional_sets: tuple[str, ...] = ()


def _accuracy(name, num_images, csv=None, clean="imagenet-1k") -> TestSet:
    return TestSet((name,), num_images, "accuracy", csv or f"results-{name}.csv", clean=clean)


def _of_subset(name, images, num_images, subset, clean=None) -> TestSet:
    csv = f"results-{name}.csv"
    return TestSet((images,), num_images, "accuracy", csv, classes=subset, clean=clean)


def _corrupted() -> TestSet:
    def names(corruptions):
        return tuple(f"imagenet-c/{c}/{s}" for c in corruptions for s in SEVERITIES)

    return TestSet(
        ("imagenet-1k", *names(CORRUPTIONS)),  # the clean error is part of relative mCE
        num_images=50_000 * (1 + len(CORRUPTIONS) * len(SEVERITIES)),
        metric="corruption",
        csv="results-imagenet-c.csv",
        clean="imagenet-1k",
        optional_sets=names(EXTRA_CORRUPTIONS),
    )


def _perturbed() -> TestSet:
    names = tuple(f"imagenet-p/{perturbation}" for perturbation in PERTURBATIONS)
    num_frames = 31 * len(PERTURBATIONS) + 10  # translate has 41
    return TestSet(names, 50_000 * num_frames, "perturbation", "results-imagenet-p.csv")


TEST_SETS: dict[str, TestSet] = {
    "imagenet-1k": _accuracy("imagenet-1k", 50_000, "results-imagenet.csv", clean=None),
    "imagenet-1k-reassessed": TestSet(
        ("imagenet-1k",), 46_837, "real", "results-imagenet-real.csv", clean="imagenet-1k"
    ),
    "imagenetv2-matched-frequency": _accuracy("imagenetv2-matched-frequency", 10_000),
    "imagenetv2-threshold0.7": _accuracy("imagenetv2-threshold0.7", 10_000),
    "imagenetv2-topimages": _accuracy("imagenetv2-topimages", 10_000),
    "imagenet-sketch": _accuracy("imagenet-sketch", 50_889, "results-sketch.csv"),
    "imagenet-a": _of_subset("imagenet-a", "imagenet-a", 7_500, "imagenet-a", "imagenet-a-clean"),
    "imagenet-o": TestSet(
        ("imagenet-o", "imagenet-1k"),  # the latter holds the classes' in-distribution images
        2_000 + 10_000,
        "out_of_distribution",
        "results-imagenet-o.csv",
        classes="imagenet-o",
    ),
    "imagenet-a-clean": _of_subset("imagenet-a-clean", "imagenet-1k", 10_000, "imagenet-a"),
    "imagenet-r": _of_subset("imagenet-r", "imagenet-r", 30_000, "imagenet-r", "imagenet-r-clean"),
    "imagenet-r-clean": _of_subset("imagenet-r-clean", "imagenet-1k", 10_000, "imagenet-r"),
    "imagenet-c": _corrupted(),
    "imagenet-p": _perturbed(),
    "digits": _accuracy("digits", digits.NUM_TEST, clean=None),
    **{
        f"digits-{shift}": _accuracy(f"digits-{shift}", digits.NUM_TEST, clean="digits")
        for shift in digits.SHIFTS
    },
}
# The columns of the published table, in its order.
PUBLISHED = tuple(TEST_SETS)[:8]


def expand_names(names: str) -> list[str]:
    """Test sets named with commas, or by "published" (the eight columns) or "all" (of ImageNet).

    Raises:
        InputError: an unknown name; the nearest is said.
    """
    groups = {
        "published": PUBLISHED,
        "all": [name for name in TEST_SETS if name.startswith("imagenet")],
    }
    found = []
    for name in names.split(","):
        if name not in TEST_SETS and name not in groups:
            nearest = difflib.get_close_matches(name, TEST_SETS, n=1, cutoff=0.0)[0]
            raise InputError(
                f"unknown test set {name!r}; the nearest is {nearest}, and there are "
                f"{', '.join([*TEST_SETS, *groups])}"
            )
        found += groups.get(name, [name])
    return list(dict.fromkeys(found))
