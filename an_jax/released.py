"""The released checkpoints: name -> architecture, recipe and published accuracies, as data."""

import json
from pathlib import Path
from typing import NamedTuple


class Recipe(NamedTuple):
    """How a released model was trained, as its documentation says.

    Attributes:
        num_epochs: passes over ImageNet's training set.
        label_smoothing: share of the target that is spread over all classes.
        mixup: alpha of mixup's Beta distribution; 0 for none.
    """

    num_epochs: int
    label_smoothing: float = 0.0
    mixup: float = 0.0


class Released(NamedTuple):
    """A released checkpoint.

    Attributes:
        architecture: its name in the zoo.
        recipe_name: "imagenet", or the advanced "imagenet_200e_ls_mixup".
        params_m: published number of parameters, in millions.
        results: test set -> published (top-1, top-5) accuracies as fractions. On imagenet-o they
            are accuracies over the 200 classes of imagenet-a.
    """

    architecture: str
    recipe_name: str
    params_m: float
    results: dict[str, tuple[float, float]]

    @property
    def recipe(self) -> Recipe:
        """What `recipe_name` stands for."""
        if self.recipe_name == "imagenet_200e_ls_mixup":
            return Recipe(200, 0.1, 0.2)
        return Recipe(150 if self.architecture.startswith("mobilenetv2") else 120)


def _read() -> dict[str, Released]:
    content = json.loads(Path(__file__).with_name("released.json").read_text())
    return {
        name: Released(
            entry["architecture"],
            entry["recipe"],
            entry["params_m"],
            dict(zip(content["columns"], map(tuple, entry["results"]), strict=True)),
        )
        for name, entry in content["models"].items()
    }


# Published name, such as "aognet_12m_an_imagenet_200e_ls_mixup", -> what is known of it.
RELEASED = _read()
