"""Custom class folders as test sets: NAME=PATH."""

import itertools
from collections import Counter
from collections.abc import Sequence

from an_jax.data.folders import (
    check_data_directory,
    has_folders,
    list_directory,
    open_class_folders,
)
from an_jax.data.sets.class_index import imagenet_names, imagenet_wnids
from an_jax.data.sets.test_sets import expand_names, own_test_set
from an_jax.data.sources import ImageList
from an_jax.data.text_files import compose
from an_jax.data.tf_on_cpu import explain
from an_jax.errors import InputError, file_errors
from an_jax.files import absolute


def parse_datasets(text: str) -> tuple[list[str], dict[str, str]]:
    """Parses a list with commas of test sets and custom class folders.

    Args:
        text: names and groups as in `expand_names`, and NAME=PATH; for example
            "imagenet-1k,pets=~/pets".

    Returns:
        The names of all test sets, in order and without repetition, and name -> absolute path of
        the class folders.

    Raises:
        InputError: a name is unknown, cannot name files, or is given twice.
    """
    names: list[str] = []
    folders: dict[str, str] = {}
    for entry in text.split(","):
        name, is_own, path = entry.partition("=")
        if not is_own:
            names += expand_names(name)
            continue
        if not path:
            raise InputError(f"--datasets {entry}: expected NAME=PATH")
        if name in folders:
            raise InputError(f"--datasets: two sets are named {name}; rename one")
        own_test_set(name)  # checks the name
        names.append(name)
        folders[name] = str(absolute(path))
    return list(dict.fromkeys(names)), folders


def open_own_set(root: str, class_names: Sequence[str]) -> ImageList:
    """Opens class folders.

    A folder is named by its class. The case, and underscores for spaces, do not matter unless two
    classes differ only by them. For ImageNet's classes it may also be named by wnid (n01440764) or
    label (0 to 999).

    Args:
        root: directory of the class folders; local or gs://.
        class_names: the model's class names, in the order of its logits.

    Raises:
        InputError: the directory does not exist, cannot be read or has no class folders, a folder
            is not one of the classes, or holds no image.
    """
    check_data_directory(root)
    names = list(class_names)
    label_of = {name: label for label, name in enumerate(names)}
    if names == [*imagenet_names()]:
        wnids = {wnid: label for label, wnid in enumerate(imagenet_wnids())}
        label_of = wnids | {str(label): label for label in range(1000)} | label_of
    counts = Counter(map(_fold, label_of))
    folded = {_fold(name): label for name, label in label_of.items() if counts[_fold(name)] == 1}
    try:
        if not has_folders(root):
            raise InputError(
                f"{root} has no class folders: sort the images into folders such as "
                f"{', '.join(itertools.islice(label_of, 3))}"
            )
        spellings = {entry: folded.get(_fold(entry)) for entry in list_directory(root)}
        others = {entry: label for entry, label in spellings.items() if label is not None}
        return open_class_folders(root, label_of | others)
    except file_errors() as error:
        raise InputError(f"{root} cannot be read: {explain(error)}") from error


def _fold(name: str) -> str:
    """Returns a name in lower case, with spaces, and a number without leading zeros."""
    return str(int(name)) if name.isdecimal() else compose(name).casefold().replace("_", " ")
