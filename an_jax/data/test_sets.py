"""The test sets, a table: where a set's images are found, its label space, its known size.

A new set is one entry here and one paragraph in docs/test_sets.md.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from an_jax.data import digits
from an_jax.data.class_index import imagenet_wnids
from an_jax.data.sources import (
    ImageList,
    TfdsSplit,
    open_class_folders,
    open_flat_folder,
    open_tfds,
)
from an_jax.errors import InputError

Source = ImageList | TfdsSplit


@dataclasses.dataclass(frozen=True)
class TestSet:
    """One column of the results.

    Attributes:
        num_images: how many images the whole set has.
        num_classes: number of logits a model for it has.
        open: data directory -> source; raises InputError if the set is not there.
        needs_data_dir: whether `open` looks at the data directory at all.
        csv: name of the file of results, timm's where timm has the set.
    """

    num_images: int
    num_classes: int
    open: Callable[[Path | None], Source]
    csv: str
    needs_data_dir: bool = True


def _open_imagenet(data_dir: Path) -> Source:
    root = data_dir / "imagenet-1k"
    candidates = [
        root / "val",
        root / "Data/CLS-LOC/val",
        root / "ILSVRC/Data/CLS-LOC/val",
        data_dir / "ILSVRC/Data/CLS-LOC/val",
        data_dir / "Data/CLS-LOC/val",
        root,
    ]
    found = next((path for path in candidates if path.is_dir()), None)
    if found is None:
        prepared = open_tfds("imagenet2012", "validation", data_dir)
        if prepared is None:
            raise InputError(
                f"no imagenet-1k in {data_dir}: expected class folders in imagenet-1k/val/<wnid>/ "
                "or a tfds-prepared imagenet2012/"
            )
        return prepared
    if not any(entry.is_dir() for entry in found.iterdir()):
        for parent in (found, *found.parents):
            if (parent / "LOC_val_solution.csv").is_file():
                solution = parent / "LOC_val_solution.csv"
                return open_flat_folder(found, solution, imagenet_wnids())
            if parent == data_dir:
                break
        raise InputError(
            f"{found} has no class folders: sort the images into folders named by wnid, or put "
            "ILSVRC's LOC_val_solution.csv beside them"
        )
    return open_class_folders(found, imagenet_wnids())


def _digits(shift: str | None) -> TestSet:
    return TestSet(
        num_images=digits.NUM_TEST,
        num_classes=10,
        open=lambda data_dir: digits.open_digits("test", shift),
        csv=f"results-digits-{shift}.csv" if shift else "results-digits.csv",
        needs_data_dir=False,
    )


TEST_SETS: dict[str, TestSet] = {
    "imagenet-1k": TestSet(50_000, 1000, _open_imagenet, "results-imagenet.csv"),
    "digits": _digits(None),
    **{f"digits-{shift}": _digits(shift) for shift in digits.SHIFTS},
}


def open_test_set(name: str, data_dir: Path | None, allow_partial: bool) -> Source:
    """Opens a set and counts it.

    Raises:
        InputError: unknown name, nothing there, or (without `allow_partial`) images missing.
    """
    if name not in TEST_SETS:
        raise InputError(f"unknown test set {name!r}; there are {', '.join(TEST_SETS)}")
    test_set = TEST_SETS[name]
    if test_set.needs_data_dir:
        if data_dir is None:
            raise InputError(f"{name} needs --data_dir")
        if not data_dir.is_dir():
            raise InputError(f"no data directory {data_dir}")
    source = test_set.open(data_dir)
    if not len(source):
        raise InputError(f"{name} is empty in {data_dir}")
    if len(source) != test_set.num_images and not allow_partial:
        raise InputError(
            f"{name} has {len(source)} images here, the whole set {test_set.num_images}; "
            "give --allow_partial to evaluate on these (the table then says n)"
        )
    return source
