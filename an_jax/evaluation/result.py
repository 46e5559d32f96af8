"""One cell of the table of results."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Result:
    """One cell of the table: a model on a test set.

    Attributes:
        model: name of the checkpoint.
        architecture: its name in the zoo.
        dataset: name of the test set.
        n: images counted; `expected`: images that the whole set has.
        scores: name -> what JSON can hold, as fractions: top1 and top5 of all sets but imagenet-p,
            and what else the set is known for.
        num_params: trained values of the model.
        image_size, crop_pct, interpolation: of the preprocessing.
        dtype: compute dtype.
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

    @property
    def norm(self) -> str:
        """What follows the convolutions: "an", "se" (batch norm with SE units), or "bn"."""
        return next((n for n in ("an", "se") if f"_{n}_" in f"{self.architecture}_"), "bn")

    @property
    def is_partial(self) -> bool:
        """Whether images of the set were missing."""
        return self.n != self.expected
