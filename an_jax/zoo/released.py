"""The released checkpoints: name -> architecture, recipe and published accuracies, as data."""

import json
from pathlib import Path
from typing import NamedTuple


class Recipe(NamedTuple):
    """How a model was trained, by the release's documentation.

    (Of its configuration files for the advanced recipe, most say otherwise.)

    Attributes:
        name: "imagenet", or the advanced "imagenet_200e_ls_mixup".
        num_epochs: passes over ImageNet's training set.
        label_smoothing: share of the target that is spread over all classes.
        mixup: alpha of mixup's Beta distribution; 0 for none.
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
        results: test set -> published (top-1, top-5) accuracies as fractions. On imagenet-o they
            are accuracies over the 200 classes of imagenet-a.
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


# Published name, such as "aognet_12m_an_imagenet_200e_ls_mixup", -> what is known of it.
RELEASED = _read()
