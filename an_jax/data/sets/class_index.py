"""The 1000 classes of ImageNet-1k, and the subsets of 200 that some test sets have."""

import functools
import json
from importlib import resources

SUBSETS = ("imagenet-a", "imagenet-o", "imagenet-r")


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """WordNet ids of the 1000 classes, sorted; a label is the position in this tuple."""
    return tuple(_data("imagenet_wnids.txt").split())


@functools.cache
def subset(name: str) -> tuple[int, ...]:
    """Labels, increasing, of the 200 classes of one of SUBSETS, as its authors list them."""
    return tuple(json.loads(_data("imagenet_subsets.json"))[name])


def _data(file: str) -> str:
    return resources.files("an_jax.data.sets").joinpath(file).read_text()
