"""The training sets, a table: how one is opened, and which test set watches over it."""

import dataclasses
from collections.abc import Callable

from an_jax.data import digits
from an_jax.data.sources import ImageList
from an_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class TrainSet:
    """Images to train on.

    Attributes:
        open: () -> source.
        test_set: name in IMAGE_SETS of the set evaluated after each epoch.
    """

    open: Callable[[], ImageList]
    test_set: str


TRAIN_SETS = {"digits": TrainSet(lambda: digits.open_digits("train"), "digits")}


def get_train_set(name: str) -> TrainSet:
    """Raises InputError if there is none of this name."""
    if name not in TRAIN_SETS:
        raise InputError(f"unknown training set {name!r}; there are {', '.join(TRAIN_SETS)}")
    return TRAIN_SETS[name]
