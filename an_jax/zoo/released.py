"""The released checkpoints: name -> architecture, recipe and published accuracies, as data."""

import json
from pathlib import Path
from typing import NamedTuple


class Recipe(NamedTuple):
    """The training of a model, according to the release's documentation.

    Most of the release's configuration files for the advanced recipe differ from it.

    Attributes:
        name: "imagenet", or the advanced "imagenet_200e_ls_mixup".
        num_epochs: passes over ImageNet's training set.
        label_smoothing: share of the target that is spread over all classes.
        mixup: alpha of mixup's Beta distribution; 0: no mixup.
    """

    name: str
    num_epochs: int
    label_smoothing: float
    mixup: float


class Released(NamedTuple):
    """A released checkpoint.

    Attributes:
        architecture: its name in the zoo.
        recipe: how it was trained.
        params_m: published number of parameters, in millions.
        results: test set -> published (top-1, top-5) accuracies as fractions. Those on imagenet-o
            are over the 200 classes of imagenet-a.
    """

    architecture: str
    recipe: Recipe
    params_m: float
    results: dict[str, tuple[float, float]]


def _read() -> dict[str, Released]:
    content = json.loads(Path(__file__).with_name("released.json").read_text())
    return {
        name: Released(
            entry["architecture"],
            Recipe(**entry["recipe"]),
            entry["params_m"],
            dict(zip(content["columns"], map(tuple, entry["results"]), strict=True)),
        )
        for name, entry in content["models"].items()
    }


# Keyed by published name, for example "aognet_12m_an_imagenet_200e_ls_mixup".
RELEASED = _read()
