"""The result of one model on one test set."""

import dataclasses
import re

_VARIANT = re.compile(r"(?<![a-z0-9])an(_bn\d+|_all)?(?![a-z0-9])")  # an_bn2: AN for the 2nd BN


def bn_counterpart(model: str) -> str | None:
    """Returns the name of the BN model that an AN model is compared with, by their names."""
    return _VARIANT.sub("bn", model) if _VARIANT.search(model) else None


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of one model on one test set: a cell of the table.

    Attributes:
        model: name of the checkpoint.
        architecture: name in the zoo.
        dataset: name of the test set.
        n: number of images that top1 is of; other scores may come with their own, "<score>_n".
        expected: number of images of the whole set.
        scores: name -> JSON value, as fractions: top1 and top5 (not for imagenet-p), and the test
            set's other metrics.
        num_params: number of trained values.
        image_size, crop_pct, interpolation: preprocessing.
        dtype: compute dtype.
        weights_digest: SHA-256 of the parameters and running statistics.
        macs: multiply-accumulates for one image (`zoo.cost`); None from an earlier version.
    """

    model: str
    architecture: str
    dataset: str
    n: int
    expected: int
    scores: dict
    num_params: int
    image_size: int
    crop_pct: float
    interpolation: str
    dtype: str
    weights_digest: str
    macs: int | None = None

    @property
    def norm(self) -> str:
        """Normalization: "an", "se" (batch norm with SE units), or "bn"."""
        return next((n for n in ("an", "se") if f"_{n}_" in f"{self.architecture}_"), "bn")

    @property
    def is_partial(self) -> bool:
        """Whether images of the set are missing."""
        return self.n != self.expected
