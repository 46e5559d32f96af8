"""The 1000 classes of ImageNet-1k."""

import functools
from importlib import resources


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """WordNet ids of the 1000 classes, sorted; a label is the position in this tuple."""
    return tuple(resources.files("an_jax.data").joinpath("imagenet_wnids.txt").read_text().split())
