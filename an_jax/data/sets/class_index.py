"""The 1000 classes of ImageNet-1k, and the 200-class subsets of some test sets."""

import functools
import json
from importlib import resources

SUBSETS = ("imagenet-a", "imagenet-o", "imagenet-r")


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """Returns the sorted WordNet ids of the 1000 classes; a label is a position in this tuple."""
    return tuple(_read("imagenet_wnids.txt").split())


@functools.cache
def imagenet_names() -> tuple[str, ...]:
    """Returns the English names of the 1000 classes, from WordNet 3.0, in the order of the ids."""
    return tuple(_read("imagenet_names.txt").splitlines())


@functools.cache
def subset(name: str) -> tuple[int, ...]:
    """Returns the increasing labels of the 200 classes of one of SUBSETS."""
    return tuple(json.loads(_read("imagenet_subsets.json"))[name])


def _read(file: str) -> str:
    return resources.files("an_jax.data.sets").joinpath(file).read_text()
